"""Cityscapes' labels, and its instance images: which pixel belongs to which object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from maskrcnn_benchmark.data.image_header import check_pixels, size_in_header
from maskrcnn_benchmark.data.image_io import is_truncated

# Label ids of the classes with instances, in their published order.
LABEL_IDS = {
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "caravan": 29, "trailer": 30, "train": 31,
    "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
# Of these the benchmark does not evaluate two.
EVALUATED = tuple(name for name in LABEL_IDS if name not in ("caravan", "trailer"))
# Ids of pixels that count neither for nor against a detection.
VOID_IDS = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
# An object has the id label * this + number; smaller ids are regions and groups of objects that were not told apart.
INSTANCES_PER_LABEL = 1000


def read_instance_ids(path: Path) -> np.ndarray:
    """Read a ``*_instanceIds.png``, integers [H, W].

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged, or not an image of ids.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"instance image {path} does not exist") from None
    if (size := size_in_header(data)) is not None:
        check_pixels(*size, f"instance image {path}")
    try:
        ids = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if not is_truncated(data) else None
    except cv2.error:  # an empty file, for one
        ids = None
    if ids is None:
        raise ValueError(f"instance image {path} is damaged or truncated ({len(data)} bytes); unpack it again")
    if ids.ndim != 2 or ids.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"instance image {path} must have one channel of 8 or 16 bits, but has the shape {list(ids.shape)} and "
            f"type {ids.dtype}; take the file that ends in _instanceIds.png"
        )
    return ids


def instances_of(
    ids: np.ndarray, *, least: int = INSTANCES_PER_LABEL
) -> Iterator[tuple[int, tuple[int, int, int, int], np.ndarray]]:
    """The objects of an instance image, by ascending id.

    Args:
        ids: integers [H, W].
        least: smaller ids, which are no objects, are passed over; above 0.

    Yields:
        The id, the tight box (x1, y1, x2, y2) in inclusive pixels, and the object inside it, bool [y2-y1+1, x2-x1+1].
    """
    rows, columns = np.nonzero(ids >= least)
    values = ids[rows, columns]
    order = np.argsort(values, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.flatnonzero(np.diff(values, prepend=0))  # the first pixel of each id; ids are positive
    if not len(starts):
        return
    boxes = np.stack(
        [reduce.reduceat(axis, starts) for reduce in (np.minimum, np.maximum) for axis in (columns, rows)], axis=1
    )
    for value, (x1, y1, x2, y2) in zip(values[starts].tolist(), boxes.tolist(), strict=True):
        yield value, (x1, y1, x2, y2), ids[y1 : y2 + 1, x1 : x2 + 1] == value
