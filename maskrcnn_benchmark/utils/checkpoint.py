"""Published path of the checkpointers."""

from maskrcnn_benchmark.checkpoint import Checkpointer as Checkpointer, DetectronCheckpointer as DetectronCheckpointer  # noqa: I001
