"""The plain kernels of coco_eval: pycocotools for masks, NumPy for matching. Letters as there."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from maskrcnn_benchmark.ops._checks import check_dtype, check_shape, check_value


def _check_offsets(op: str, name: str, offsets: list[int], end: int) -> None:
    check_value(len(offsets) > 0, op, f"{name} must not be empty")
    ascends = offsets[0] == 0 and offsets[-1] == end and all(a <= b for a, b in pairwise(offsets))
    check_value(ascends, op, f"{name} must ascend from 0 to {end}")


def _texts(op: str, text: Tensor, offsets: Tensor) -> list[bytes]:
    bounds = offsets.tolist()
    _check_offsets(op, "offsets", bounds, len(text))
    whole = text.numpy().tobytes()
    return [whole[a:b] for a, b in pairwise(bounds)]


def _rles(op: str, text: Tensor, offsets: Tensor) -> list[dict[str, Any]]:
    """As pycocotools takes them, all of one size that holds any mask: areas and overlaps do not depend on it."""
    return [{"size": [1 << 31, 1], "counts": counts} for counts in _texts(op, text, offsets)]


def check_rasterize(coords: Tensor, ring_offsets: Tensor, instance_offsets: Tensor, sizes: Tensor) -> None:
    """Shapes and types of ``rasterize_polygons``."""
    op = "rasterize_polygons"
    check_shape(coords, op, "coords", ("V", 2))
    check_dtype(coords, op, "coords", (torch.float64,))
    for name, offsets in (("ring_offsets", ring_offsets), ("instance_offsets", instance_offsets)):
        check_shape(offsets, op, name, ("n",))
        check_dtype(offsets, op, name, (torch.int64,))
    check_shape(sizes, op, "sizes", (instance_offsets.shape[0] - 1, 2))
    check_dtype(sizes, op, "sizes", (torch.int64,))


def rasterize_polygons_plain(
    coords: Tensor, ring_offsets: Tensor, instance_offsets: Tensor, sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """The op ``rasterize_polygons``."""
    check_rasterize(coords, ring_offsets, instance_offsets, sizes)
    op = "rasterize_polygons"
    rings, instances = ring_offsets.tolist(), instance_offsets.tolist()
    _check_offsets(op, "ring_offsets", rings, len(coords))
    _check_offsets(op, "instance_offsets", instances, len(rings) - 1)
    vertices = coords.numpy()
    counts = []
    for (first, last), (height, width) in zip(pairwise(instances), sizes.tolist(), strict=True):
        check_value(
            height >= 1 and width >= 1 and height * width < 1 << 32,
            op,
            f"sizes must be positive with fewer than 2^32 pixels, got {height} x {width}",
        )
        parts = [
            coco_mask.frPyObjects([vertices[a:b].ravel().tolist()], height, width)[0]
            for a, b in pairwise(rings[first : last + 1])
            if a < b
        ]
        empty = {"size": [height, width], "counts": [height * width]}
        whole = coco_mask.merge(parts) if parts else coco_mask.frPyObjects(empty, height, width)
        counts.append(whole["counts"])
    text = torch.from_numpy(np.frombuffer(b"".join(counts), dtype=np.uint8).copy())
    return text, torch.tensor([0, *map(len, counts)]).cumsum(0)


def check_texts(op: str, text: Tensor, offsets: Tensor) -> None:
    """Shapes and types of many masks."""
    check_shape(text, op, "text", ("B",))
    check_dtype(text, op, "text", (torch.uint8,))
    check_shape(offsets, op, "offsets", ("n",))
    check_dtype(offsets, op, "offsets", (torch.int64,))


def rle_areas_plain(text: Tensor, offsets: Tensor) -> Tensor:
    """The op ``rle_areas``."""
    check_texts("rle_areas", text, offsets)
    rles = _rles("rle_areas", text, offsets)
    return torch.from_numpy(np.asarray(coco_mask.area(rles) if rles else [], dtype=np.int64))


def _check_groups(op: str, dt_groups: Tensor, gt_groups: Tensor) -> None:
    for name, groups in (("dt_groups", dt_groups), ("gt_groups", gt_groups)):
        check_shape(groups, op, name, ("n",))
        check_dtype(groups, op, name, (torch.int64,))
    check_value(len(dt_groups) == len(gt_groups), op, "dt_groups and gt_groups must be of one length")


def rle_overlaps_plain(
    dt_text: Tensor,
    dt_offsets: Tensor,
    gt_text: Tensor,
    gt_offsets: Tensor,
    dt_groups: Tensor,
    gt_groups: Tensor,
    gt_crowd: Tensor,
) -> Tensor:
    """The op ``rle_overlaps``."""
    op = "rle_overlaps"
    check_texts(op, dt_text, dt_offsets)
    check_texts(op, gt_text, gt_offsets)
    _check_groups(op, dt_groups, gt_groups)
    detections, objects = _rles(op, dt_text, dt_offsets), _rles(op, gt_text, gt_offsets)
    _check_crowd(op, gt_crowd, len(objects))
    _check_offsets(op, "dt_groups", dt_groups.tolist(), len(detections))
    _check_offsets(op, "gt_groups", gt_groups.tolist(), len(objects))
    crowd = gt_crowd.tolist()
    found = [np.zeros(0)]
    for (d0, d1), (g0, g1) in zip(pairwise(dt_groups.tolist()), pairwise(gt_groups.tolist()), strict=True):
        if d0 < d1 and g0 < g1:
            found.append(np.asarray(coco_mask.iou(detections[d0:d1], objects[g0:g1], crowd[g0:g1])).ravel())
    return torch.from_numpy(np.concatenate(found))


def _check_crowd(op: str, gt_crowd: Tensor, num_objects: int) -> None:
    check_shape(gt_crowd, op, "gt_crowd", (num_objects,))
    check_dtype(gt_crowd, op, "gt_crowd", (torch.uint8,))


def check_match(
    ious: Tensor, dt_groups: Tensor, gt_groups: Tensor, gt_ignored: Tensor, gt_crowd: Tensor, thresholds: Tensor
) -> None:
    """Shapes and types of ``match_detections``."""
    op = "match_detections"
    check_shape(ious, op, "ious", ("n",))
    check_dtype(ious, op, "ious", (torch.float64,))
    _check_groups(op, dt_groups, gt_groups)
    check_value(len(dt_groups) > 0, op, "dt_groups must not be empty")
    check_shape(gt_ignored, op, "gt_ignored", ("A", "G"))
    check_dtype(gt_ignored, op, "gt_ignored", (torch.uint8,))
    _check_crowd(op, gt_crowd, gt_ignored.shape[1])
    check_shape(thresholds, op, "thresholds", ("T",))
    check_dtype(thresholds, op, "thresholds", (torch.float64,))


def match_detections_plain(
    ious: Tensor, dt_groups: Tensor, gt_groups: Tensor, gt_ignored: Tensor, gt_crowd: Tensor, thresholds: Tensor
) -> Tensor:
    """The op ``match_detections``."""
    op = "match_detections"
    check_match(ious, dt_groups, gt_groups, gt_ignored, gt_crowd, thresholds)
    detections, objects = dt_groups.tolist(), gt_groups.tolist()
    _check_offsets(op, "dt_groups", detections, detections[-1])
    _check_offsets(op, "gt_groups", objects, gt_ignored.shape[1])
    num_pairs = int(dt_groups.diff() @ gt_groups.diff())
    check_value(len(ious) == num_pairs, op, f"ious must have the shape [{num_pairs}], got {list(ious.shape)}")
    values, ignored, crowd = ious.numpy(), gt_ignored.numpy().astype(bool), gt_crowd.numpy().astype(bool)
    limits = np.minimum(thresholds.numpy(), 1 - 1e-10)
    matches = np.full((len(ignored), len(limits), detections[-1]), -1, dtype=np.int32)
    start = 0
    for (d0, d1), (g0, g1) in zip(pairwise(detections), pairwise(objects), strict=True):
        table = values[start : start + (d1 - d0) * (g1 - g0)].reshape(d1 - d0, g1 - g0)
        start += table.size
        if table.size:
            own = _match_group(table, ignored[:, g0:g1], crowd[g0:g1], limits)
            matches[:, :, d0:d1] = np.where(own < 0, -1, own + g0)
    return torch.from_numpy(matches)


def _match_group(ious: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Matches int [A, T, D] of one group, for all area ranges and thresholds at once."""
    num_detections, num_objects = ious.shape
    shape = (len(ignored), len(limits), num_objects)
    taken = np.zeros(shape, dtype=bool)
    result = np.full((*shape[:2], num_detections), -1)
    for d, own in enumerate(ious):
        usable = (~taken | crowd) & (own >= limits[None, :, None])
        counting = usable & ~ignored[:, None]
        usable = np.where(counting.any(axis=2, keepdims=True), counting, usable)
        # Of equally good ones the last: the first from behind.
        best = num_objects - 1 - np.where(usable, own, -1)[..., ::-1].argmax(axis=2)
        best = np.where(usable.any(axis=2), best, -1)
        result[..., d] = best
        area, threshold = np.nonzero(best >= 0)
        taken[area, threshold, best[area, threshold]] = True
    return result
