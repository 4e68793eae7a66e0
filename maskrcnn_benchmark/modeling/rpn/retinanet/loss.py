"""Training of RetinaNet. Source: Lin et al., Focal Loss for Dense Object Detection (2017), section 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.layers import smooth_l1_loss
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.rpn.loss import gather_boxes
from maskrcnn_benchmark.modeling.utils import cat
from maskrcnn_benchmark.structures.targets import Targets


@torch.no_grad()
def match_classes(
    anchors: Tensor, targets: Targets, *, fg_iou_threshold: float, bg_iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Assign ground truth to anchors. Every ground truth also claims the anchors that overlap it most.

    Anchors that cross the image border take part, as in the original, whatever its STRADDLE_THRESH says.

    Args:
        anchors: [A, 4].

    Returns:
        labels: [N, A] int64: class, 0 background, -1 ignored.
        matches: [N, A] index of the ground truth; 0 where there is none.
    """
    matches = ops.match_boxes(
        anchors, targets.boxes, targets.valid, high=fg_iou_threshold, low=bg_iou_threshold, allow_low_quality=True
    )
    index = matches.clamp(min=0)
    classes = targets.labels.gather(1, index) if targets.labels.shape[1] else index
    return torch.where(matches >= 0, classes, matches + 1), index  # -1 below the low threshold, -2 between the two


def retinanet_losses(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Tensor,
    targets: Targets,
    *,
    box_coder: BoxCoder,
    fg_iou_threshold: float,
    bg_iou_threshold: float,
    alpha: float,
    gamma: float,
    box_beta: float,
    box_norm: float,
) -> tuple[Tensor, Tensor]:
    """Return (classification loss, box loss), 0-d, over all anchors of the batch.

    The first is divided by the number of positives plus the number of images, the second by the number of positives
    times box_norm, but at least by 1, as in the original.

    Args:
        logits: [N, A_l, K] class logits without background, one tensor a level.
        deltas: [N, A_l, 4] box codes.
        anchors: [A, 4], of all levels one after the other.
        fg_iou_threshold, bg_iou_threshold: an anchor is positive from the first on, negative below the second.
        alpha, gamma: see `ops.sigmoid_focal_loss`.
        box_beta: corner of the smooth L1 loss.
    """
    labels, matches = match_classes(
        anchors, targets, fg_iou_threshold=fg_iou_threshold, bg_iou_threshold=bg_iou_threshold
    )
    num_positive = (labels > 0).sum()
    # level by level, because joining the logits would copy the largest tensors of the network
    labels_per_level = labels.split([level.shape[1] for level in logits], dim=1)
    focal = [
        ops.sigmoid_focal_loss(level.flatten(0, 1), level_labels.flatten(), gamma=gamma, alpha=alpha)
        for level, level_labels in zip(logits, labels_per_level, strict=True)
    ]
    classification_loss = torch.stack(focal).sum() / (num_positive + len(labels))

    target_deltas = box_coder.encode(gather_boxes(targets.boxes, matches), anchors)
    positive = (labels > 0)[..., None]
    # where() on both sides: codes of other anchors may be infinite, and 0 * inf would reach the gradient
    box_loss = smooth_l1_loss(
        torch.where(positive, cat(deltas, dim=1).float(), 0.0),
        torch.where(positive, target_deltas, 0.0),
        beta=box_beta,
        size_average=False,
    )
    return classification_loss, box_loss / (num_positive * box_norm).clamp(min=1)
