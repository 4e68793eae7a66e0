"""Annotations of a COCO json, collected piece by piece as arrays; they may stand before images and categories.

Letters: A annotations, Q polygon rings, V vertices, T keypoints.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.coco_entries import (
    decode_rle,
    keypoints_of,
    numbers_of,
    rings_of,
    wrong_size,
)
from maskrcnn_benchmark.data.datasets.packed.arrays import offsets_of, ranges
from maskrcnn_benchmark.data.image_header import MOST_PIXELS
from maskrcnn_benchmark.structures.polygons import mask_to_polygons

FAULTS = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
_BLOCK = 1 << 16  # annotations at a time


@dataclass
class AnnotationArrays:
    """Annotations in the order of the file, or of their images.

    Attributes:
        ids: [A], integers or texts.
        image_ids: int64 [A].
        category_ids: int64 [A].
        boxes: float32 [A, 4], x, y, width, height.
        areas: float32 [A].
        iscrowd: bool [A].
        ring_counts: int32 [A].
        ring_lengths: int32 [Q], vertices of each ring.
        coords: float32 [V, 2].
        rle_sizes: int32 [A, 2], (height, width) of an RLE, zeros elsewhere.
        keypoint_counts: int32 [A].
        keypoints: float32 [T, 3].
    """

    ids: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray
    ring_counts: np.ndarray
    ring_lengths: np.ndarray
    coords: np.ndarray
    rle_sizes: np.ndarray
    keypoint_counts: np.ndarray
    keypoints: np.ndarray

    def __len__(self) -> int:
        return len(self.image_ids)


def convert(items: Any) -> AnnotationArrays:
    """Annotations as they stand in the file to arrays.

    Raises:
        ValueError: when one is faulty; the message names it.
    """
    if not isinstance(items, list):
        raise ValueError(f"'annotations' must be a list, got {type(items).__name__}")
    try:
        return _convert(items)
    except FAULTS:
        for item in items:
            _find_fault(item)
        raise


def _find_fault(item: Any) -> None:
    if not isinstance(item, dict):
        raise ValueError(f"an annotation must be an object, got {str(item)[:60]}")
    who = f"annotation {item.get('id')}"
    try:
        _convert([item])
    except FAULTS as error:
        if isinstance(error, KeyError):
            raise ValueError(f"{who}: key {error} is missing") from error
        text = str(error)
        raise ValueError(text if text.startswith(who) else f"{who} {text}") from error


def _convert(items: list[dict[str, Any]]) -> AnnotationArrays:
    crowds = [_crowd(item) for item in items]
    numbers, ring_lengths, ring_counts, rle_sizes = _polygons(items, crowds)
    keypoints = [keypoints_of(item) for item in items if item.get("keypoints")]
    return AnnotationArrays(
        ids=np.array([str(item.get("id")) for item in items]),
        image_ids=_integers(items, "image_id"),
        category_ids=_integers(items, "category_id"),
        boxes=_boxes(items),
        areas=_areas(items),
        iscrowd=np.array(crowds, dtype=bool),
        ring_counts=np.array(ring_counts, dtype=np.int32),
        ring_lengths=np.array(ring_lengths, dtype=np.int32),
        coords=numbers,
        rle_sizes=np.array(rle_sizes, dtype=np.int32).reshape(-1, 2),
        keypoint_counts=np.array([len(item.get("keypoints") or ()) // 3 for item in items], dtype=np.int32),
        keypoints=np.concatenate([np.zeros((0, 3), dtype=np.float32), *keypoints]),
    )


def _crowd(item: dict[str, Any]) -> bool:
    value = item.get("iscrowd")
    if value is not None and value not in (0, 1):
        raise ValueError(f"must have iscrowd 0 or 1, got {value!r}")
    return bool(value)


def _integers(items: list[dict[str, Any]], key: str) -> np.ndarray:
    values = np.array([item[key] for item in items])
    if values.size and (values.dtype.kind != "i" or values.ndim != 1):
        raise ValueError(f"must have an integer {key}, got {str(items[0][key])[:60]!r}")
    return values.astype(np.int64)


def _boxes(items: list[dict[str, Any]]) -> np.ndarray:
    wrong = "must have a bbox of 4 numbers (x, y, width, height)"
    boxes = [item.get("bbox") for item in items]
    if any(not isinstance(box, list) or len(box) != 4 for box in boxes):
        raise ValueError(f"{wrong}, got {str(boxes[0])[:60]}")
    try:
        return numbers_of(list(chain.from_iterable(boxes))).reshape(-1, 4).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wrong}: {error}") from None


def _areas(items: list[dict[str, Any]]) -> np.ndarray:
    areas = np.array([item.get("area") or 0.0 for item in items])
    if areas.size and (areas.dtype.kind not in "iuf" or areas.ndim != 1 or not (np.abs(areas) < MOST_PIXELS).all()):
        raise ValueError(f"must have an area in square pixels, got {str(items[0].get('area'))[:60]!r}")
    return areas.astype(np.float32)


def _polygons(
    items: list[dict[str, Any]], crowds: list[bool]
) -> tuple[np.ndarray, list[int], list[int], list[tuple[int, int]]]:
    """Give coords float32 [V, 2], vertices of each ring, rings of each annotation, size of each RLE."""
    numbers: list[float] = []
    lengths: list[int] = []
    counts, rle_sizes = [], []
    for item, is_crowd in zip(items, crowds, strict=True):
        segmentation, before, size = item.get("segmentation"), len(lengths), (0, 0)
        if segmentation and not is_crowd:
            try:
                if isinstance(segmentation, dict):
                    rings, size = _rings_of_rle(segmentation)
                else:
                    rings = rings_of(segmentation)
                for ring in rings:
                    numbers.extend(ring)
                    lengths.append(len(ring) // 2)
            except FAULTS as error:
                detail = f"key {error} is missing" if isinstance(error, KeyError) else error
                raise ValueError(f"has a segmentation that cannot be read: {detail}") from error
        counts.append(len(lengths) - before)
        rle_sizes.append(size)
    try:
        coords = numbers_of(numbers).reshape(-1, 2).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"has a segmentation that cannot be read: {error}") from error
    return coords, lengths, counts, rle_sizes


def _rings_of_rle(rle: dict[str, Any]) -> tuple[list[list[float]], tuple[int, int]]:
    """The polygons of an RLE, and its (height, width), which has still to be compared with the image's."""
    height, width = rle["size"]
    if type(height) is not int or type(width) is not int or not 0 < height * width <= MOST_PIXELS or height < 0:
        raise ValueError(f"an RLE must have a size [height, width] in pixels, got {rle['size']}")
    rings = mask_to_polygons(decode_rle(rle, height=height, width=width))
    return [ring.ravel().tolist() for ring in rings], (height, width)


def join(pieces: list[AnnotationArrays], *, image_ids: np.ndarray, sizes: np.ndarray) -> AnnotationArrays:
    """All annotations in the order of their images; those of other images are left out, with a warning.

    Args:
        pieces: in the order of the file; emptied on the way, so that memory holds the coordinates about twice.
        image_ids: int64 [I], ascending.
        sizes: int32 [I, 2], (height, width).

    Raises:
        ValueError: when an RLE has another size than its image.
    """
    every = _concatenated(pieces or [_convert([])])
    rows = np.searchsorted(image_ids, every.image_ids)
    is_listed = np.zeros(len(every), dtype=bool)
    inside = rows < len(image_ids)
    is_listed[inside] = image_ids[rows[inside]] == every.image_ids[inside]
    if not is_listed.all():
        logging.getLogger(__name__).warning(
            "%d annotations belong to images that are not listed and are left out", (~is_listed).sum()
        )
    order = np.flatnonzero(is_listed)
    order = order[np.argsort(rows[order], kind="stable")]
    differs = (every.rle_sizes[order] != 0).any(axis=1) & (every.rle_sizes[order] != sizes[rows[order]]).any(axis=1)
    if differs.any():
        index = order[differs][0]
        error = wrong_size(every.rle_sizes[index].tolist(), *sizes[rows[index]].tolist())
        raise ValueError(f"annotation {every.ids[index]} has a segmentation that cannot be read: {error}")
    return _reordered(every, order)


def _concatenated(pieces: list[AnnotationArrays]) -> AnnotationArrays:
    columns = {item.name: [getattr(piece, item.name) for piece in pieces] for item in fields(AnnotationArrays)}
    pieces.clear()
    return AnnotationArrays(**{name: np.concatenate(columns.pop(name)) for name in list(columns)})


def _reordered(every: AnnotationArrays, order: np.ndarray) -> AnnotationArrays:
    per_ring = {"ring_lengths", "coords", "keypoints"}
    rows = {item.name for item in fields(every)} - per_ring
    ring_offsets, keypoint_offsets = offsets_of(every.ring_counts), offsets_of(every.keypoint_counts)
    rings = ranges(ring_offsets[order], ring_offsets[order + 1])
    points = ranges(keypoint_offsets[order], keypoint_offsets[order + 1])
    vertex_offsets = offsets_of(every.ring_lengths)
    coords = np.empty((int(every.ring_lengths[rings].sum()), 2), dtype=np.float32)
    filled = 0
    for begin in range(0, len(rings), _BLOCK):
        block = rings[begin : begin + _BLOCK]
        vertices = ranges(vertex_offsets[block], vertex_offsets[block + 1])
        coords[filled : filled + len(vertices)] = every.coords[vertices]
        filled += len(vertices)
    return AnnotationArrays(
        **{name: getattr(every, name)[order] for name in rows},
        ring_lengths=every.ring_lengths[rings],
        coords=coords,
        keypoints=every.keypoints[points],
    )
