"""Functions on BoxLists, as users' scripts import them. Inside the network the ops work on tensors of a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.structures.bounding_box import WIDTH_OFFSET, BoxList
from maskrcnn_benchmark.structures.keypoint import Keypoints
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask


def boxlist_nms(boxlist: BoxList, nms_thresh: float, max_proposals: int = -1, score_field: str = "scores") -> BoxList:
    """Suppress boxes whose IoU with a better one is above ``nms_thresh``.

    Args:
        boxlist: n boxes with scores in the field ``score_field``.
        nms_thresh: 0 or less suppresses nothing.
        max_proposals: keep at most so many, the best ones; 0 or less keeps all.

    Returns:
        The boxes that are left, in their old order and mode.
    """
    if nms_thresh <= 0:
        return boxlist
    scores = boxlist.get_field(score_field)
    keep = ops.nms(boxlist.convert("xyxy").bbox, scores, nms_thresh)
    if 0 < max_proposals < len(keep):
        best = torch.argsort(scores[keep], descending=True, stable=True)[:max_proposals]
        keep = keep[best.sort().values]
    return boxlist[keep]


def remove_small_boxes(boxlist: BoxList, min_size: float) -> BoxList:
    """Return the boxes whose width and height are at least ``min_size`` pixels."""
    width, height = boxlist.convert("xywh").bbox[:, 2:].unbind(dim=1)
    return boxlist[(width >= min_size) & (height >= min_size)]


def boxlist_iou(boxlist1: BoxList, boxlist2: BoxList) -> Tensor:
    """Return the IoU [n, m] float32 of every box of one BoxList with every box of another of the same image size."""
    if boxlist1.size != boxlist2.size:
        raise ValueError(f"boxes of different image sizes cannot be compared: {boxlist1!r} and {boxlist2!r}")
    first, second = boxlist1.convert("xyxy").bbox, boxlist2.convert("xyxy").bbox
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = (bottom_right - top_left + WIDTH_OFFSET).clamp(min=0).prod(dim=2)
    return intersection / (boxlist1.area()[:, None] + boxlist2.area()[None, :] - intersection)


def cat_boxlist(bboxes: Sequence[BoxList]) -> BoxList:
    """Join BoxLists of one image; they must agree in size, mode and fields."""
    if not isinstance(bboxes, (list, tuple)) or not all(isinstance(b, BoxList) for b in bboxes):
        raise TypeError(f"cat_boxlist needs a list of BoxLists, not {bboxes!r}")
    if not bboxes:
        raise ValueError("cat_boxlist needs at least one BoxList")
    first = bboxes[0]
    for other in bboxes[1:]:
        if (other.size, other.mode, set(other.fields())) != (first.size, first.mode, set(first.fields())):
            raise ValueError(
                f"BoxLists that are joined must agree in size, mode and fields: "
                f"{first!r} with {first.fields()}, {other!r} with {other.fields()}"
            )
    result = BoxList(torch.cat([b.bbox for b in bboxes]), first.size, first.mode)
    for field in first.fields():
        result.add_field(field, _cat([b.get_field(field) for b in bboxes]))
    return result


def _cat(values: list[Any]) -> Any:
    """Join the values of one field."""
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    if isinstance(values[0], (SegmentationMask, Keypoints)):
        return type(values[0]).cat(values)
    return [item for value in values for item in value]
