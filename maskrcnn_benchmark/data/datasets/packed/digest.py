"""What stands for the content of packed annotations, wherever and whenever they were packed."""

from __future__ import annotations

import hashlib

from maskrcnn_benchmark.data.datasets.packed.arrays import PackedAnnotations

_PART = 1 << 22  # bytes of an array at a time


def digest_packed(packed: PackedAnnotations) -> str:
    """sha256 of all arrays: names, sizes and ids of images, categories, boxes, labels, polygons, keypoints.

    Unlike the name of a cache it does not depend on how the annotation file was written, on its times or its place.
    """
    digest = hashlib.sha256()
    for name, array in packed.arrays():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        flat = array.reshape(-1)
        step = max(_PART // max(array.itemsize, 1), 1)
        for begin in range(0, len(flat), step):
            # Copied: what a process has touched of a mapped file counts as its memory, a buffer is given back.
            digest.update(flat[begin : begin + step].tobytes())
    return digest.hexdigest()
