"""Training of the mask head. Source: He et al., Mask R-CNN (2017), section 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.modeling.poolers import boxes_to_rois
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import SampledRegions
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.targets import Targets


def mask_targets(targets: Targets, instances: Tensor, boxes: Tensor, *, resolution: int) -> Tensor:
    """Rasterise ground-truth polygons inside the regions matched to them.

    Args:
        targets: with polygons.
        instances: [P] int64, slot n * G + g of the matched ground truth; negative: a target of zeros.
        boxes: [P, 4] regions.
        resolution: M, side of a target.

    Returns:
        [P, M, M] float32 of zeros and ones.

    Raises:
        ValueError: when the targets hold no masks.
    """
    if targets.polygons is None:
        raise ValueError("MODEL.MASK_ON is True, but the targets hold no masks; add them or set MODEL.MASK_ON False")
    polygons = targets.polygons
    return ops.polygon_mask_targets(
        polygons.coords,
        polygons.ring_offsets,
        polygons.instance_offsets,
        instances,
        boxes,
        resolution=resolution,
    )


class MaskRegions(NamedTuple):
    """The regions whose masks are trained."""

    rois: Tensor  # [P, 5] image index, -1 for an empty slot, and box
    labels: Tensor  # [P] int64 class
    instances: Tensor  # [P] int64 slot n * G + g of the matched ground truth, -1 for an empty slot
    slots: Tensor  # [P] int64 slot n * S + s of the sampled region

    @property
    def valid(self) -> Tensor:
        """[P] bool: which slots hold a region."""
        return self.instances >= 0


def positive_regions(regions: SampledRegions, *, num_targets: int, num_slots: int | None) -> MaskRegions:
    """Choose the regions that hold an object.

    Args:
        regions: sampled, [N, S].
        num_targets: G.
        num_slots: None gives the P positives alone, whose number the host has to wait for. A number of slots for each
            image, no smaller than that of its positives, gives P = N * min(num_slots, S), and nobody waits.
    """
    positive = (regions.labels > 0) & regions.valid
    first = num_targets * torch.arange(len(positive), device=positive.device)[:, None]
    instances = torch.where(positive, first + regions.matches, -1)
    if num_slots is not None:  # the sampler puts the positives of an image first
        part = (slice(None), slice(num_slots))
        slots = torch.arange(positive.numel(), device=positive.device).reshape(positive.shape)[part].flatten()
        rois = boxes_to_rois(regions.boxes[part], positive[part])
        return MaskRegions(rois, regions.labels[part].flatten(), instances[part].flatten(), slots)
    slots = positive.flatten().nonzero().squeeze(1)
    rois = boxes_to_rois(regions.boxes, positive)[slots]
    return MaskRegions(rois, regions.labels.flatten()[slots], instances.flatten()[slots], slots)


def _own_class(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the map [P, M, M] of each region's class from logits [P, K, M, M] and labels [P]."""
    index = labels[:, None, None, None]
    if logits.is_contiguous(memory_format=torch.channels_last):  # then the gradient gets this layout too
        maps = logits.permute(0, 2, 3, 1)
        return maps.gather(3, index.expand(*maps.shape[:3], 1)).squeeze(3)
    return logits.gather(1, index.expand(-1, 1, *logits.shape[2:])).squeeze(1)


def mask_loss(logits: Tensor, labels: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean binary cross-entropy (0-d) over the pixels of the true classes' masks; 0 without regions.

    Args:
        logits: [P, K, M, M].
        labels: [P] int64 true classes.
        masks: [P, M, M] targets.
        valid: [P] bool; the other regions do not count. None: all count.
    """
    own = _own_class(logits, labels).float()
    if own.numel() == 0:
        return own.sum()  # keeps every parameter in the graph, with gradients of zero
    if valid is None:
        return F.binary_cross_entropy_with_logits(own, masks)
    losses = F.binary_cross_entropy_with_logits(own, masks, reduction="none")
    num_pixels = valid.sum() * masks.shape[1:].numel()
    return torch.where(valid[:, None, None], losses, 0.0).sum() / num_pixels.clamp(min=1)


class MaskRCNNLossComputation:
    """Published face of `mask_targets` and `mask_loss` for heads that work on lists of boxes.

    Args:
        fg_iou_threshold, bg_iou_threshold: a proposal is matched from the first on.
        resolution: M, side of a target.
    """

    def __init__(self, *, fg_iou_threshold: float, bg_iou_threshold: float, resolution: int) -> None:
        self.fg_iou_threshold = fg_iou_threshold
        self.bg_iou_threshold = bg_iou_threshold
        self.resolution = resolution

    def __call__(self, proposals: Sequence[BoxList], mask_logits: Tensor, targets: Sequence[BoxList]) -> Tensor:
        """Return the mask loss (0-d) over the proposals that match a ground truth.

        Args:
            proposals: P in all; those without a match do not count.
            mask_logits: [P, K, M, M] of all images' proposals in order.
            targets: with fields labels and masks.
        """
        packed, truth = Proposals.from_boxlists(proposals), Targets.from_boxlists(targets)
        matches = ops.match_boxes(
            packed.boxes,
            truth.boxes,
            truth.valid,
            high=self.fg_iou_threshold,
            low=self.bg_iou_threshold,
            allow_low_quality=False,
        )
        num_targets = truth.boxes.shape[1]
        slots = torch.arange(len(matches), device=matches.device)[:, None] * num_targets + matches
        slots, boxes = slots[packed.valid], packed.boxes[packed.valid]
        positive = (matches[packed.valid] >= 0).nonzero().squeeze(1)
        masks = mask_targets(truth, slots[positive], boxes[positive], resolution=self.resolution)
        return mask_loss(mask_logits[positive], truth.labels.flatten()[slots[positive]], masks)


def make_roi_mask_loss_evaluator(cfg: Any) -> MaskRCNNLossComputation:
    """Build the mask loss that MODEL.ROI_HEADS and MODEL.ROI_MASK_HEAD describe."""
    return MaskRCNNLossComputation(
        fg_iou_threshold=cfg.MODEL.ROI_HEADS.FG_IOU_THRESHOLD,
        bg_iou_threshold=cfg.MODEL.ROI_HEADS.BG_IOU_THRESHOLD,
        resolution=cfg.MODEL.ROI_MASK_HEAD.RESOLUTION,
    )
