"""Annotations of a data set as flat arrays, which processes can share.

Letters: I images, K categories, A annotations, Q polygon rings, V polygon vertices, E of them stored apart, T keypoints
of all annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

# Parts of a pixel that coordinates are counted in if they allow it: whole ones (masks), hundredths (COCO polygons).
_SCALES = (1, 100)
_LARGEST_CODE = np.iinfo(np.uint16).max
# A vertex takes 4 bytes as codes, 8 as floats, and 12 more where it is stored apart.
_MOST_APART = 1 / 3
_BLOCK = 1 << 20  # vertices at a time: temporary arrays stay small


@dataclass(frozen=True)
class PackedStrings:
    """A list of strings as one block of UTF-8 bytes.

    Attributes:
        data: uint8, all strings one after the other.
        offsets: int64 [n + 1], first byte of each.
    """

    data: np.ndarray
    offsets: np.ndarray

    @classmethod
    def pack(cls, strings: list[str]) -> PackedStrings:
        """Pack a list of strings."""
        encoded = [string.encode() for string in strings]
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets_of([len(item) for item in encoded]))

    def __getitem__(self, index: int) -> str:
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes().decode(errors="replace")

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class PackedCoords:
    """Vertices of polygons, x and y in pixels, float32 [V, 2] to the last bit, in half the memory if that is possible.

    Attributes:
        codes: uint16 [V, 2] to be divided by ``scale``, or float32 [V, 2], the coordinates themselves.
        scale: int64 [1], 1 or 100.
        apart: int64 [E], ascending: vertices that codes cannot express.
        values: float32 [E, 2], their coordinates.
    """

    codes: np.ndarray
    scale: np.ndarray
    apart: np.ndarray
    values: np.ndarray

    @classmethod
    def pack(cls, coords: np.ndarray) -> PackedCoords:
        """Pack float32 [V, 2]."""
        for scale in _SCALES:
            apart = _inexpressible(coords, scale)
            if apart is not None:
                break
        else:
            nothing = np.zeros(0, dtype=np.int64)
            return cls(coords, np.ones(1, dtype=np.int64), nothing, np.zeros((0, 2), dtype=np.float32))
        codes = np.empty(coords.shape, dtype=np.uint16)
        for block in _slices(len(coords)):
            codes[block] = _encoded(coords[block], scale)
        return cls(codes, np.full(1, scale, dtype=np.int64), apart, coords[apart])

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.take(np.arange(len(self))[part])

    def take(self, vertices: np.ndarray) -> np.ndarray:
        """Some vertices, float32 [n, 2], copied; ``vertices`` int64 [n]."""
        codes = self.codes[vertices]
        if codes.dtype == np.float32:
            return codes
        coords = _decoded(codes, int(self.scale[0]))
        if len(self.apart) and len(vertices):
            found = np.minimum(np.searchsorted(self.apart, vertices), len(self.apart) - 1)
            is_apart = self.apart[found] == vertices
            coords[is_apart] = self.values[found[is_apart]]
        return coords

    def __len__(self) -> int:
        return len(self.codes)


def _slices(count: int) -> Iterator[slice]:
    return (slice(begin, min(begin + _BLOCK, count)) for begin in range(0, count, _BLOCK))


def _inexpressible(coords: np.ndarray, scale: int) -> np.ndarray | None:
    """The vertices that codes cannot express, int64 [E]; None when these are so many that codes do not pay."""
    found = [np.zeros(0, dtype=np.int64)]
    for block in _slices(len(coords)):
        differs = _decoded(_encoded(coords[block], scale), scale) != coords[block]
        found.append(block.start + np.flatnonzero(differs.any(axis=1)))
        if sum(map(len, found)) > _MOST_APART * len(coords):
            return None
    return np.concatenate(found)


def _encoded(coords: np.ndarray, scale: int) -> np.ndarray:
    return np.clip(np.rint(coords.astype(np.float64) * scale), 0, _LARGEST_CODE).astype(np.uint16)


def _decoded(codes: np.ndarray, scale: int) -> np.ndarray:
    # The quotient of two integers in float64 is what a parser makes of the decimal number, so that float32 is the same.
    return (codes / np.float64(scale)).astype(np.float32)


@dataclass(frozen=True)
class PackedAnnotations:
    """What training needs of an annotation file. Rows of images come in ascending order of their ids.

    Attributes:
        image_ids: int64 [I], ascending.
        image_sizes: int32 [I, 2], (height, width).
        file_names: I names.
        category_ids: int64 [K] in the order of the file; label k is category_ids[k - 1].
        category_names: K names.
        keypoint_names: K texts, the names of the keypoints of each category, one a line; empty where there are none.
        annotation_offsets: int64 [I + 1], first annotation of each image.
        boxes: float32 [A, 4], x, y, width, height as in the file.
        labels: int64 [A], 1 .. K.
        iscrowd: bool [A]; in Pascal VOC's format the difficult objects.
        areas: float32 [A].
        polygon_offsets: int64 [A + 1], first ring of each annotation; a crowd has no rings.
        ring_offsets: int64 [Q + 1], first vertex of each ring.
        coords: V vertices, x and y in pixels; float32 [V, 2] is packed when it is given.
        keypoint_offsets: int64 [A + 1], first keypoint of each annotation.
        keypoints: float32 [T, 3], x and y in pixels and visibility.
        path: the file behind the arrays; None when they are in memory.
        checksum: of that file, so that another process maps the very same.
    """

    image_ids: np.ndarray
    image_sizes: np.ndarray
    file_names: PackedStrings
    category_ids: np.ndarray
    category_names: PackedStrings
    keypoint_names: PackedStrings
    annotation_offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    iscrowd: np.ndarray
    areas: np.ndarray
    polygon_offsets: np.ndarray
    ring_offsets: np.ndarray
    coords: PackedCoords
    keypoint_offsets: np.ndarray
    keypoints: np.ndarray
    path: Path | None = field(default=None, compare=False)
    checksum: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.coords, np.ndarray):
            object.__setattr__(self, "coords", PackedCoords.pack(self.coords))

    def __reduce__(self) -> tuple[Callable, tuple]:
        # A worker that does not share memory by fork maps the file again instead of receiving a copy.
        if self.path is not None:
            from maskrcnn_benchmark.data.datasets.packed.file import map_packed  # that module imports this one

            return map_packed, (self.path, self.checksum)
        return PackedAnnotations, tuple(getattr(self, item.name) for item in fields(self))

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """All arrays with their names; those of a field that holds several as "field.array"."""
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                yield item.name, value
            elif isinstance(value, (PackedStrings, PackedCoords)):
                yield from ((f"{item.name}.{part.name}", getattr(value, part.name)) for part in fields(value))

    def take_polygons(self, annotations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Polygons of some annotations, copied.

        Args:
            annotations: int64 [G], rows of annotations.

        Returns:
            coords float32 [V', 2], ring_offsets int64 [Q' + 1], instance_offsets int64 [G + 1].
        """
        first, last = self.polygon_offsets[annotations], self.polygon_offsets[annotations + 1]
        rings = ranges(first, last)
        begin, end = self.ring_offsets[rings], self.ring_offsets[rings + 1]
        return self.coords.take(ranges(begin, end)), offsets_of(end - begin), offsets_of(last - first)

    def take_keypoints(self, annotations: np.ndarray, count: int) -> np.ndarray:
        """Keypoints of some annotations, float32 [G, count, 3], copied; zeros for an annotation without keypoints.

        Args:
            annotations: int64 [G], rows of annotations, each with ``count`` keypoints or none.
            count: P.
        """
        points = np.zeros((len(annotations), count, 3), dtype=np.float32)
        first, last = self.keypoint_offsets[annotations], self.keypoint_offsets[annotations + 1]
        has_any = last > first
        points[has_any] = self.keypoints[first[has_any, None] + np.arange(count)]
        return points


def offsets_of(lengths: np.ndarray | list[int]) -> np.ndarray:
    """int64 [n + 1]: where each of n pieces begins that lie one after the other, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ranges(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The integers first[0] .. last[0] - 1, first[1] .. last[1] - 1 and so on, int64."""
    offsets = offsets_of(last - first)
    return np.repeat(first - offsets[:-1], last - first) + np.arange(offsets[-1])
