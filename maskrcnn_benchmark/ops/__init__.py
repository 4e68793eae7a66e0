"""Functions on tensors: one module an op, each with a plain PyTorch kernel that compiled ones override per device.

Boxes are inclusive (x1, y1, x2, y2) pixels: a box is x2 - x1 + 1 wide.
"""

from __future__ import annotations

from maskrcnn_benchmark.ops._library import backend_info

__all__ = ["backend_info"]
