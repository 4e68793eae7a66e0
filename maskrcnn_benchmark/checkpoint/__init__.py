"""Weights in and out of files."""

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer, DetectronCheckpointer
from maskrcnn_benchmark.checkpoint.weights import LoadReport, fill_from_weights

__all__ = ["Checkpointer", "DetectronCheckpointer", "LoadReport", "fill_from_weights"]
