"""From RetinaNet's maps to detections, for a whole batch and all levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import Detections
from maskrcnn_benchmark.modeling.utils import cat


def _best_of_level(
    logits: Tensor,  # [N, A, K]
    deltas: Tensor,  # [N, A, 4]
    anchors: Tensor,  # [A, 4]
    num: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the T best pairs of anchor and class: logits and labels [N, T], deltas and anchors [N, T, 4].

    They belong to the T anchors whose best class is best, so that most logits are looked at once and never sorted.
    """
    num_classes = logits.shape[2]
    _, rows = logits.amax(dim=2).topk(min(num, logits.shape[1]), dim=1)
    candidates = logits.gather(1, rows[..., None].expand(-1, -1, num_classes)).flatten(1)
    values, index = candidates.topk(min(num, candidates.shape[1]), dim=1)
    rows = rows.gather(1, index.div(num_classes, rounding_mode="floor"))
    return values, index % num_classes + 1, deltas.gather(1, rows[..., None].expand(-1, -1, 4)), anchors[rows]


def select_dense_detections(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    image_sizes: Tensor,
    *,
    box_coder: BoxCoder,
    score_thresh: float,
    pre_nms_top_n: int,
    nms_thresh: float,
    detections_per_img: int,
) -> Detections:
    """Decode the best candidates of each level, suppress overlaps within each class over all levels, keep the best.

    Source: Lin et al., Focal Loss for Dense Object Detection (2017), section 4.1.

    Args:
        logits: class logits without background [N, A_l, K], one tensor a level.
        deltas: box codes [N, A_l, 4].
        anchors: [A_l, 4].
        image_sizes: [N, 2] (height, width).
        score_thresh: only higher class probabilities count.
        pre_nms_top_n: most candidates of a level; a candidate is an anchor with one class.
        nms_thresh: boxes of one class with a larger IoU are suppressed.
        detections_per_img: the most objects of an image; 0 keeps all.
    """
    best = [_best_of_level(*level, num=pre_nms_top_n) for level in zip(logits, deltas, anchors, strict=True)]
    values, labels, codes, anchors = (cat(column, dim=1) for column in zip(*best, strict=True))
    scores = values.float().sigmoid()
    scores, order = torch.where(scores > score_thresh, scores, -1.0).sort(dim=1, descending=True, stable=True)
    labels = labels.gather(1, order)
    boxes = clip_boxes(box_coder.decode(codes.float(), anchors), image_sizes)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))

    n, num_candidates = scores.shape
    num_classes = logits[0].shape[2]
    classes = torch.arange(1, num_classes + 1, device=labels.device)
    member = (labels[:, None] == classes[:, None]) & (scores >= 0)[:, None]  # [N, K, M], a row of boxes a class
    rows = boxes[:, None].expand(-1, num_classes, -1, -1)
    keep = ops.batched_nms(rows.flatten(0, 1), member.flatten(0, 1), iou_threshold=nms_thresh)
    keep = keep.reshape(n, num_classes, num_candidates).any(dim=1)

    scores, order = torch.where(keep, scores, -1.0).sort(dim=1, descending=True, stable=True)
    num_slots = detections_per_img or num_candidates
    scores, order = scores[:, :num_slots], order[:, :num_slots]
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    return Detections(boxes, scores, labels.gather(1, order), scores >= 0)
