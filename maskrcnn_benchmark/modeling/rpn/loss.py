"""Training of the region proposal network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.layers import smooth_l1_loss
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.sampling import sample_slots
from maskrcnn_benchmark.structures.targets import Targets


def match_anchors(
    anchors: Tensor, visible: Tensor, targets: Targets, *, fg_iou_threshold: float, bg_iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Assign ground truth to anchors. Source: Ren et al., Faster R-CNN (2015), section 3.1.2.

    Every ground truth also claims the anchors that overlap it most.

    Args:
        anchors: [A, 4].
        visible: [N, A] bool; other anchors are ignored.

    Returns:
        labels: [N, A] int64: 1 object, 0 background, -1 ignored.
        matches: [N, A] index of the ground truth; 0 where there is none.
    """
    matches = ops.match_boxes(
        anchors, targets.boxes, targets.valid, high=fg_iou_threshold, low=bg_iou_threshold, allow_low_quality=True
    )
    labels = torch.where(matches >= 0, 1, matches + 1)  # -1 below the low threshold, -2 between the two
    return torch.where(visible, labels, -1), matches.clamp(min=0)


def gather_boxes(boxes: Tensor, index: Tensor) -> Tensor:
    """Return boxes[n, index[n, s]], [N, S, 4]; zeros when there are no boxes at all."""
    if boxes.shape[1] == 0:
        return boxes.new_zeros((*index.shape, 4))
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))


def rpn_losses(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    visible: Tensor,
    targets: Targets,
    *,
    box_coder: BoxCoder,
    fg_iou_threshold: float,
    bg_iou_threshold: float,
    batch_size_per_image: int,
    positive_fraction: float,
) -> tuple[Tensor, Tensor]:
    """Return (objectness loss, box loss), 0-d, both divided by the number of sampled anchors in the batch.

    Args:
        logits: [N, A] objectness.
        deltas: [N, A, 4] box codes.
        anchors: [A, 4].
        visible: [N, A] bool.
    """
    labels, matches = match_anchors(
        anchors, visible, targets, fg_iou_threshold=fg_iou_threshold, bg_iou_threshold=bg_iou_threshold
    )
    index, valid = sample_slots(labels, num_samples=batch_size_per_image, positive_fraction=positive_fraction)
    sampled_labels = labels.gather(1, index)
    num_sampled = valid.sum().clamp(min=1)

    objectness = F.binary_cross_entropy_with_logits(
        logits.gather(1, index).float(), sampled_labels.clamp(min=0).float(), reduction="none"
    )
    objectness_loss = torch.where(valid, objectness, 0.0).sum() / num_sampled

    matched_boxes = gather_boxes(targets.boxes, matches.gather(1, index))
    target_deltas = box_coder.encode(matched_boxes, anchors[index])
    positive = (valid & (sampled_labels > 0))[..., None]
    sampled_deltas = deltas.gather(1, index[..., None].expand(-1, -1, 4)).float()
    # where() on both sides: an empty slot may hold infinite codes, and 0 * inf would reach the gradient
    box_loss = smooth_l1_loss(
        torch.where(positive, sampled_deltas, 0.0),
        torch.where(positive, target_deltas, 0.0),
        beta=1.0 / 9,
        size_average=False,
    )
    return objectness_loss, box_loss / num_sampled
