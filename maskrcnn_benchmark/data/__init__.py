"""Samples to batches: data sets, samplers, transforms, loaders."""

from __future__ import annotations

from maskrcnn_benchmark.data.build import make_data_loader, make_dataset, validate_num_classes
from maskrcnn_benchmark.data.transforms import ImagePreparer

__all__ = ["ImagePreparer", "make_data_loader", "make_dataset", "validate_num_classes"]
