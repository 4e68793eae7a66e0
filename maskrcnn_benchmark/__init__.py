"""Mask R-CNN on today's PyTorch, with the names, configs and checkpoints of the published harness.

Importing this package imports nothing else: no torch, no OpenCV, no CUDA. Each room is imported where it is used.
"""

from __future__ import annotations

__version__ = "0.1.0"
