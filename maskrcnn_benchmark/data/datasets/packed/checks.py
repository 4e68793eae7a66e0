"""Whether the arrays of a packed file fit one another.

A checksum finds what was damaged, not what was made to do harm: the file may have come with a stranger's data set, and
readers of its offsets, down to compiled kernels, take them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np

_BLOCK = 1 << 16  # numbers at a time: what is read here shall not stay with the process
_INT, _FLOAT, _BYTE = "i8", "f4", "u1"
# Name -> kinds that it may have, numbers in a row (0: a vector).
_FORMS: dict[str, tuple[tuple[str, ...], int]] = {
    "image_ids": ((_INT,), 0),
    "image_sizes": (("i4",), 2),
    "category_ids": ((_INT,), 0),
    "annotation_offsets": ((_INT,), 0),
    "boxes": ((_FLOAT,), 4),
    "labels": ((_INT,), 0),
    "iscrowd": (("b1",), 0),
    "areas": ((_FLOAT,), 0),
    "polygon_offsets": ((_INT,), 0),
    "ring_offsets": ((_INT,), 0),
    "coords.codes": (("u2", _FLOAT), 2),
    "coords.scale": ((_INT,), 0),
    "coords.apart": ((_INT,), 0),
    "coords.values": ((_FLOAT,), 2),
    "keypoint_offsets": ((_INT,), 0),
    "keypoints": ((_FLOAT,), 3),
    **{f"{name}.{part}": ((kind,), 0) for name in ("file_names", "category_names", "keypoint_names")
       for part, kind in (("data", _BYTE), ("offsets", _INT))},
}  # fmt: skip
# Offsets -> what they count up to, and what they stand for one by one.
_OFFSETS = {
    "annotation_offsets": ("labels", "image_ids"),
    "polygon_offsets": ("ring_offsets", "labels"),
    "ring_offsets": ("coords.codes", None),
    "keypoint_offsets": ("keypoints", "labels"),
    "file_names.offsets": ("file_names.data", "image_ids"),
    "category_names.offsets": ("category_names.data", "category_ids"),
    "keypoint_names.offsets": ("keypoint_names.data", "category_ids"),
}
# Arrays of one length.
_ALIKE = (
    ("image_ids", "image_sizes"),
    ("labels", "boxes", "iscrowd", "areas"),
    ("coords.apart", "coords.values"),
)


def check_table(table: object) -> None:
    """Check that the table of a header names all arrays with their types and shapes, and no other.

    Args:
        table: lists of name, type and shape.

    Raises:
        ValueError: it does not; the message is the end of a sentence.
    """
    if not isinstance(table, list) or not all(isinstance(row, list) and len(row) == 3 for row in table):
        raise ValueError("has no table of arrays")
    if sorted(str(name) for name, _, _ in table) != sorted(_FORMS):
        raise ValueError("has other arrays than it should")
    for name, kind, shape in table:
        kinds, width = _FORMS[name]
        if not isinstance(kind, str) or kind.lstrip("<>=|") not in kinds:
            raise ValueError(f"has numbers of another type in {name}")
        is_shape = isinstance(shape, list) and all(type(size) is int and 0 <= size < 1 << 40 for size in shape)
        if not is_shape or len(shape) != (2 if width else 1) or (width and shape[1] != width):
            raise ValueError(f"has another shape of {name}")


def check_arrays(file: BinaryIO, places: Mapping[str, tuple[int, str, list[int]]]) -> None:
    """Check that offsets rise up to what they count, and that numbers of classes, sizes and corners can be such.

    Args:
        file: the packed file.
        places: array -> where it begins in the file, its type and its shape, as `check_table` passes them.

    Raises:
        ValueError: they do not; the message is the end of a sentence.
    """
    length = {name: shape[0] for name, (_, _, shape) in places.items()}
    for names in _ALIKE:
        _require(len({length[name] for name in names}) == 1, f"has {' and '.join(names)} of different lengths")
    for name, (counted, owners) in _OFFSETS.items():
        end = length[counted] - (1 if counted == "ring_offsets" else 0)
        fits = length[name] >= 1 and (owners is None or length[name] == length[owners] + 1)
        _require(fits and _rises(_numbers(file, *places[name]), end), f"has wrong {name}")
    _require(_within(file, places["labels"], 1, length["category_ids"]), "has labels of no class")
    _require(_within(file, places["image_sizes"], 1, np.iinfo(np.int32).max), "has images without a size")
    _require(length["coords.scale"] == 1 and _within(file, places["coords.scale"], 1, 1000), "has no coords.scale")
    _require(_within(file, places["coords.apart"], 0, length["coords.codes"] - 1), "has wrong coords.apart")
    for name in ("boxes", "keypoints", "coords.values", "areas"):
        _require(all(np.isfinite(block).all() for block in _numbers(file, *places[name])), f"has no numbers in {name}")


def _require(fits: bool, fault: str) -> None:
    if not fits:
        raise ValueError(fault)


def _numbers(file: BinaryIO, start: int, kind: str, shape: list[int]) -> Iterator[np.ndarray]:
    """The numbers of an array as a vector, some at a time."""
    dtype, count = np.dtype(kind), int(np.prod(shape))
    for begin in range(0, count, _BLOCK):
        file.seek(start + begin * dtype.itemsize)
        yield np.frombuffer(file.read(dtype.itemsize * min(_BLOCK, count - begin)), dtype)


def _rises(blocks: Iterator[np.ndarray], end: int) -> bool:
    """Whether numbers begin at 0, never fall, and end at ``end``."""
    last, is_first = 0, True
    for block in blocks:
        if (is_first and block[0] != 0) or block[0] < last or (block[1:] < block[:-1]).any():
            return False
        last, is_first = int(block[-1]), False
    return last == end


def _within(file: BinaryIO, place: tuple[int, str, list[int]], least: int, most: int) -> bool:
    return all((block >= least).all() and (block <= most).all() for block in _numbers(file, *place))
