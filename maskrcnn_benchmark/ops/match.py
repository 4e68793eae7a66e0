"""Assignment of boxes to ground truths by IoU. N images, P boxes, G ground truth slots."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.ops._boxes import pairwise_iou
from maskrcnn_benchmark.ops._checks import check_dtype, check_same_device, check_shape, check_value
from maskrcnn_benchmark.ops._library import LIB, define_op

BELOW_LOW = -1
BETWEEN = -2

# IoU values that the plain kernel holds at a time.
_PLAIN_CHUNK = 1 << 22


def match_boxes(
    boxes: Tensor,  # [N, P, 4] or [P, 4] xyxy
    gt_boxes: Tensor,  # [N, G, 4] xyxy
    gt_valid: Tensor,  # [N, G] bool
    *,
    high: float,
    low: float,
    allow_low_quality: bool,
    offset: int = 1,
) -> Tensor:
    """The ground truth of each box, by IoU and two thresholds, without the IoU matrix in memory.

    Args:
        boxes: [N, P, 4] (x1, y1, x2, y2) in pixels, or [P, 4] shared by all images; compared in float32.
        gt_boxes: [N, G, 4]; G may be 0.
        gt_valid: [N, G] bool; slots that are False match nothing.
        high: boxes whose best IoU is at least this are matched.
        low: boxes whose best IoU is below this are background; those between the two are neither.
        allow_low_quality: every box whose IoU equals the best that some ground truth has with any box gets its own
            best match back, whatever the thresholds say. As in the original Matcher that includes a best of 0.
        offset: 1 when coordinates are inclusive pixels, 0 otherwise.

    Returns:
        [N, P] int64: slot of the matched ground truth (of equal IoUs the lowest), BELOW_LOW (-1) or BETWEEN (-2). An
        image without ground truth is all -1. It carries no gradient.

    Raises:
        ValueError: on shapes that do not fit, or low > high.
        TypeError: when ``gt_valid`` is not bool.
    """
    return torch.ops.mrcnn.match_boxes(
        boxes.detach().float(), gt_boxes.detach().float(), gt_valid, high, low, allow_low_quality, offset
    )


def _check(boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor, high: float, low: float) -> None:
    op = "match_boxes"
    check_shape(gt_boxes, op, "gt_boxes", ("N", "G", 4))
    check_shape(gt_valid, op, "gt_valid", tuple(gt_boxes.shape[:2]))
    check_shape(boxes, op, "boxes", ("P", 4) if boxes.dim() == 2 else (gt_boxes.shape[0], "P", 4))
    check_dtype(boxes, op, "boxes", (torch.float32,))
    check_dtype(gt_boxes, op, "gt_boxes", (torch.float32,))
    check_dtype(gt_valid, op, "gt_valid", (torch.bool,))
    check_same_device(op, boxes=boxes, gt_boxes=gt_boxes, gt_valid=gt_valid)
    check_value(low <= high, op, f"low ({low}) must not exceed high ({high})")


def _iou_of_valid(gt_boxes: Tensor, gt_valid: Tensor, boxes: Tensor, offset: int) -> Tensor:
    """IoU [N, G, P]; -1, which is below every IoU, in the slots of padding."""
    return pairwise_iou(gt_boxes, boxes, offset).where(gt_valid[..., None], -1.0)


def _match_boxes_plain(
    boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor, high: float, low: float, allow_low_quality: bool, offset: int
) -> Tensor:
    _check(boxes, gt_boxes, gt_valid, high, low)
    num_images, num_gt = gt_valid.shape
    matches = gt_valid.new_full((num_images, boxes.shape[-2]), BELOW_LOW, dtype=torch.int64)
    if matches.numel() == 0 or num_gt == 0:
        return matches
    parts = boxes.split(max(1, _PLAIN_CHUNK // gt_valid.numel()), dim=-2)
    gt_best = boxes.new_full((num_images, num_gt), -1.0)
    if allow_low_quality:
        for part in parts:
            gt_best = gt_best.maximum(_iou_of_valid(gt_boxes, gt_valid, part, offset).amax(dim=2))
    gt_best = gt_best.where(gt_valid, torch.inf)
    start = 0
    for part in parts:
        iou = _iou_of_valid(gt_boxes, gt_valid, part, offset)
        best, index = iou.max(dim=1)
        matched = index.masked_fill(best < high, BETWEEN).masked_fill(best < low, BELOW_LOW)
        if allow_low_quality:
            matched = index.where((iou == gt_best[..., None]).any(dim=1), matched)
        matches[:, start : start + part.shape[-2]] = matched
        start += part.shape[-2]
    return matches.where(gt_valid.any(dim=1, keepdim=True), BELOW_LOW)


_MATCH_BOXES = define_op(
    "match_boxes(Tensor boxes, Tensor gt_boxes, Tensor gt_valid, float high, float low, bool allow_low_quality, "
    "int offset) -> Tensor",
    _match_boxes_plain,
)


@torch.library.register_fake(_MATCH_BOXES, lib=LIB)
def _match_boxes_fake(
    boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor, high: float, low: float, allow_low_quality: bool, offset: int
) -> Tensor:
    _check(boxes, gt_boxes, gt_valid, high, low)
    return boxes.new_empty((gt_valid.shape[0], boxes.shape[-2]), dtype=torch.int64)
