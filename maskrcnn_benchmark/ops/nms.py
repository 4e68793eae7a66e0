"""Greedy non-maximum suppression. B rows, K slots a row, R boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.ops._boxes import pairwise_iou
from maskrcnn_benchmark.ops._checks import check_dtype, check_same_device, check_shape, check_value
from maskrcnn_benchmark.ops._library import LIB, define_op


def batched_nms(
    boxes: Tensor,  # [B, K, 4] xyxy
    valid: Tensor,  # [B, K] bool
    *,
    iou_threshold: float,
    offset: int = 1,
) -> Tensor:
    """Suppresses overlapping boxes in each row by itself, on fixed shapes and without a host synchronisation.

    Args:
        boxes: [B, K, 4] (x1, y1, x2, y2) in pixels, any float type (compared in float32), each row sorted by
            descending score.
        valid: [B, K] bool; slots that are False neither keep nor suppress.
        iou_threshold: at least 0; a box goes when its IoU with a kept box before it is greater than this, in float32.
        offset: 1 when coordinates are inclusive pixels (a box is x2 - x1 + 1 wide), 0 otherwise.

    Returns:
        [B, K] bool, the kept slots. It carries no gradient.

    Raises:
        ValueError: on shapes that do not fit, or a negative threshold.
        TypeError: when ``valid`` is not bool.
    """
    return torch.ops.mrcnn.batched_nms(boxes.detach().float(), valid, iou_threshold, offset)


def nms(
    boxes: Tensor,  # [R, 4] xyxy
    scores: Tensor,  # [R]
    iou_threshold: float,
    *,
    offset: int = 1,
) -> Tensor:
    """Indices of the boxes that no better one suppresses.

    Args:
        boxes: [R, 4] (x1, y1, x2, y2) in pixels.
        scores: [R]; of equal scores the lower index comes first.
        iou_threshold: a box goes when its IoU with a better kept one is greater than this.
        offset: 1 when coordinates are inclusive pixels, 0 otherwise.

    Returns:
        int64 indices in ascending order (as published: a caller who cuts to the first n sorts the input first).

    Raises:
        ValueError: on shapes that do not fit, or a negative threshold.
    """
    check_shape(boxes, "nms", "boxes", ("R", 4))
    check_shape(scores, "nms", "scores", (boxes.shape[0],))
    order = scores.detach().argsort(descending=True, stable=True)
    valid = torch.ones_like(order, dtype=torch.bool)
    keep = batched_nms(boxes[order][None], valid[None], iou_threshold=iou_threshold, offset=offset)[0]
    return torch.zeros_like(keep).scatter(0, order, keep).nonzero().squeeze(1)


def _check(boxes: Tensor, valid: Tensor, iou_threshold: float) -> None:
    check_shape(boxes, "batched_nms", "boxes", ("B", "K", 4))
    check_shape(valid, "batched_nms", "valid", tuple(boxes.shape[:2]))
    check_dtype(boxes, "batched_nms", "boxes", (torch.float32,))
    check_dtype(valid, "batched_nms", "valid", (torch.bool,))
    check_same_device("batched_nms", boxes=boxes, valid=valid)
    check_value(iou_threshold >= 0, "batched_nms", f"iou_threshold must be at least 0, got {iou_threshold}")


def _greedy(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Kept boxes [n] bool of one row without empty slots."""
    suppresses = (pairwise_iou(boxes, boxes, offset) > iou_threshold).triu(diagonal=1).cpu()
    keep = torch.ones(len(boxes), dtype=torch.bool)
    for index in range(len(boxes)):
        if keep[index]:
            keep &= ~suppresses[index]
    return keep.to(boxes.device)


def _batched_nms_plain(boxes: Tensor, valid: Tensor, iou_threshold: float, offset: int) -> Tensor:
    _check(boxes, valid, iou_threshold)
    keep = torch.zeros_like(valid)
    for row in valid.any(dim=1).nonzero().flatten().tolist():
        slots = valid[row].nonzero().squeeze(1)
        keep[row, slots] = _greedy(boxes[row, slots], iou_threshold, offset)
    return keep


_BATCHED_NMS = define_op(
    "batched_nms(Tensor boxes, Tensor valid, float iou_threshold, int offset) -> Tensor", _batched_nms_plain
)


@torch.library.register_fake(_BATCHED_NMS, lib=LIB)
def _batched_nms_fake(boxes: Tensor, valid: Tensor, iou_threshold: float, offset: int) -> Tensor:
    _check(boxes, valid, iou_threshold)
    return valid.new_empty(valid.shape)
