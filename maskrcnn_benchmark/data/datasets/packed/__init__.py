"""Packed annotations: the arrays, the file that processes share, and where it is kept."""

from __future__ import annotations

from maskrcnn_benchmark.data.datasets.packed.arrays import PackedAnnotations, PackedCoords, PackedStrings, offsets_of
from maskrcnn_benchmark.data.datasets.packed.cache import fingerprint_of, open_packed
from maskrcnn_benchmark.data.datasets.packed.file import FORMAT_VERSION, load_packed, save_packed

__all__ = [
    "FORMAT_VERSION",
    "PackedAnnotations",
    "PackedCoords",
    "PackedStrings",
    "fingerprint_of",
    "load_packed",
    "offsets_of",
    "open_packed",
    "save_packed",
]
