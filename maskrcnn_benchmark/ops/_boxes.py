"""Arithmetic of boxes that the plain kernels share; the compiled ones repeat it operation by operation."""

from __future__ import annotations

from torch import Tensor


def box_area(boxes: Tensor, offset: int) -> Tensor:
    """Areas [...] of boxes [..., 4] (x1, y1, x2, y2); ``offset`` 1 counts both border pixels, 0 does not."""
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)


def pairwise_iou(boxes1: Tensor, boxes2: Tensor, offset: int) -> Tensor:
    """Intersection over union of every pair.

    Args:
        boxes1: [..., A, 4] float (x1, y1, x2, y2).
        boxes2: [..., B, 4] likewise.
        offset: 1 for inclusive pixels, 0 for continuous coordinates.

    Returns:
        [..., A, B]; 0 where the union is not positive (inverted boxes) or not a number.
    """
    first, second = boxes1[..., :, None, :], boxes2[..., None, :, :]
    corner1 = first[..., :2].maximum(second[..., :2])
    corner2 = first[..., 2:].minimum(second[..., 2:])
    sides = (corner2 - corner1 + offset).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    union = box_area(first, offset) + box_area(second, offset) - intersection
    return (intersection / union).where(union > 0, 0.0)
