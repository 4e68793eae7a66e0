"""From the RPN's maps to proposals, for a whole batch and all levels at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes
from maskrcnn_benchmark.modeling.proposals import Proposals


def _best_per_level(
    logits: Sequence[Tensor],  # L x [N, A_l]
    deltas: Sequence[Tensor],  # L x [N, A_l, 4]
    anchors: Sequence[Tensor],  # L x [A_l, 4]
    num: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the num best candidates of each level: logits [N, L, T], deltas and anchors [N, L, T, 4], best first.

    Smaller levels are filled up with logits of minus infinity.
    """
    num_slots = max(min(num, level.shape[1]) for level in logits)
    columns: tuple[list[Tensor], ...] = ([], [], [])
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
        count = min(num, level_logits.shape[1])
        values, index = level_logits.topk(count, dim=1)
        padding = num_slots - count
        columns[0].append(F.pad(values, (0, padding), value=-torch.inf))
        chosen = level_deltas.gather(1, index[..., None].expand(-1, -1, 4))
        columns[1].append(F.pad(chosen, (0, 0, 0, padding)))
        columns[2].append(F.pad(level_anchors[index], (0, 0, 0, padding)))
    return tuple(torch.stack(column, dim=1) for column in columns)


def _keep_best(scores: Tensor, num: int) -> Tensor:
    """Return a bool mask of the num highest finite entries of scores (any shape)."""
    flat = scores.flatten()
    if num >= flat.numel():
        return scores.isfinite()
    values, index = flat.topk(num)
    mask = torch.zeros_like(flat, dtype=torch.bool).scatter_(0, index, values.isfinite())
    return mask.reshape(scores.shape)


def select_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    image_sizes: Tensor,
    *,
    box_coder: BoxCoder,
    pre_nms_top_n: int,
    post_nms_top_n: int,
    total_top_n: int,
    total_over_batch: bool,
    nms_thresh: float,
    min_size: int,
) -> Proposals:
    """Decode the best anchors of each level, suppress overlaps within a level, keep the best over all levels.

    Source: Ren et al., Faster R-CNN (2015), section 3.3; over a pyramid as in Lin et al. (2017), section 4.1.

    Args:
        logits: objectness [N, A_l], one tensor a level.
        deltas: box codes [N, A_l, 4].
        anchors: [A_l, 4].
        image_sizes: [N, 2] (height, width).
        pre_nms_top_n, post_nms_top_n: limits of a level before and after suppression.
        total_top_n: limit over all levels (several levels only).
        total_over_batch: count total_top_n over the whole batch instead of each image (published training).
        nms_thresh: boxes with a larger IoU are suppressed.
        min_size: smallest side of a proposal, in pixels.
    """
    logits, deltas, anchors = _best_per_level(logits, deltas, anchors, pre_nms_top_n)
    boxes = clip_boxes(box_coder.decode(deltas.float(), anchors), image_sizes)
    sizes = boxes[..., 2:] - boxes[..., :2] + box_coder.offset
    valid = logits.isfinite() & (sizes >= min_size).all(dim=-1)
    keep = ops.batched_nms(boxes.flatten(0, 1), valid.flatten(0, 1), iou_threshold=nms_thresh).reshape(valid.shape)
    keep &= keep.cumsum(dim=-1) <= post_nms_top_n

    num_levels, num_candidates = valid.shape[1:]
    num_slots = num_levels * min(post_nms_top_n, num_candidates)
    if num_levels > 1:
        num_slots = min(num_slots, total_top_n)
    scores = torch.where(keep, logits.float(), -torch.inf).flatten(1)
    scores, index = scores.topk(min(num_slots, scores.shape[1]), dim=1)
    boxes = boxes.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 4))
    valid = _keep_best(scores, total_top_n) if total_over_batch and num_levels > 1 else scores.isfinite()
    return Proposals(boxes, scores.sigmoid(), valid)
