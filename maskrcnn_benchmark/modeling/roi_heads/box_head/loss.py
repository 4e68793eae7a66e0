"""Training of the box head. Source: Girshick, Fast R-CNN (2015), section 2.3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.layers import smooth_l1_loss
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.rpn.loss import gather_boxes
from maskrcnn_benchmark.modeling.sampling import sample_slots
from maskrcnn_benchmark.modeling.utils import cat
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.targets import Targets


class SampledRegions(NamedTuple):
    """Proposals chosen for training, in a fixed number of slots an image."""

    boxes: Tensor  # [N, S, 4]
    valid: Tensor  # [N, S] bool
    labels: Tensor  # [N, S] int64 class, 0 background
    matches: Tensor  # [N, S] int64 index of the ground truth
    target_deltas: Tensor  # [N, S, 4] box codes; meaningful where labels > 0


@torch.no_grad()
def sample_regions(
    proposals: Proposals,
    targets: Targets,
    *,
    box_coder: BoxCoder,
    fg_iou_threshold: float,
    bg_iou_threshold: float,
    batch_size_per_image: int,
    positive_fraction: float,
) -> SampledRegions:
    """Add the ground truth to the proposals, match, and sample positives and negatives."""
    boxes = torch.cat((proposals.boxes, targets.boxes), dim=1)
    valid = torch.cat((proposals.valid, targets.valid), dim=1)
    matches = ops.match_boxes(
        boxes, targets.boxes, targets.valid, high=fg_iou_threshold, low=bg_iou_threshold, allow_low_quality=False
    )
    if targets.boxes.shape[1]:
        labels = targets.labels.gather(1, matches.clamp(min=0))
    else:
        labels = torch.zeros_like(matches)
    labels = torch.where(matches >= 0, labels, matches + 1)  # -1 is background, -2 lies between the thresholds
    labels = torch.where(valid, labels, -1)

    index, valid = sample_slots(labels, num_samples=batch_size_per_image, positive_fraction=positive_fraction)
    boxes = gather_boxes(boxes, index)
    matches = matches.gather(1, index).clamp(min=0)
    target_deltas = box_coder.encode(gather_boxes(targets.boxes, matches), boxes)
    return SampledRegions(boxes, valid, labels.gather(1, index).clamp(min=0), matches, target_deltas)


def box_head_losses(logits: Tensor, deltas: Tensor, regions: SampledRegions) -> tuple[Tensor, Tensor]:
    """Return (classification loss, box loss), 0-d, both divided by the number of sampled regions in the batch.

    Args:
        logits: [N * S, K].
        deltas: [N * S, 4 B] box codes: one set a class, of which only the true class's are trained, or 2 sets, of which
            every object trains the second.
    """
    labels, valid = regions.labels.flatten(), regions.valid.flatten()
    num_sampled = valid.sum().clamp(min=1)
    cross_entropy = F.cross_entropy(logits.float(), labels, reduction="none")
    classification_loss = torch.where(valid, cross_entropy, 0.0).sum() / num_sampled

    deltas = deltas.unflatten(1, (-1, 4))
    own_set = labels.clamp(max=deltas.shape[1] - 1)[:, None, None].expand(-1, 1, 4)
    own_deltas = deltas.gather(1, own_set).squeeze(1).float()
    positive = (valid & (labels > 0))[:, None]
    box_loss = smooth_l1_loss(
        torch.where(positive, own_deltas, 0.0),
        torch.where(positive, regions.target_deltas.flatten(0, 1), 0.0),
        beta=1.0,
        size_average=False,
    )
    return classification_loss, box_loss / num_sampled


class FastRCNNLossComputation:
    """Published face of `sample_regions` and `box_head_losses` for heads that work on lists of boxes.

    Its two calls belong together: `subsample` remembers the regions whose losses the other one computes.

    Args:
        settings: keyword arguments of `sample_regions`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.regions: SampledRegions | None = None

    def subsample(self, proposals: Sequence[BoxList], targets: Sequence[BoxList]) -> list[BoxList]:
        """Return the sampled proposals of each image with fields labels and regression_targets."""
        regions = sample_regions(Proposals.from_boxlists(proposals), Targets.from_boxlists(targets), **self.settings)
        sampled = []
        for boxes, valid, labels, _, target_deltas, proposal in zip(*regions, proposals, strict=True):
            boxlist = BoxList(boxes[valid], proposal.size, mode="xyxy")
            boxlist.add_field("labels", labels[valid])
            boxlist.add_field("regression_targets", target_deltas[valid])
            sampled.append(boxlist)
        self.regions = SampledRegions(*(column[regions.valid][None] for column in regions))
        return sampled

    def __call__(self, class_logits: Sequence[Tensor], box_regression: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (classification loss, box loss) for the outputs on the boxes that `subsample` returned.

        Raises:
            RuntimeError: `subsample` was not called before.
        """
        if self.regions is None:
            raise RuntimeError(
                "call subsample(proposals, targets) before computing the losses of the sampled proposals"
            )
        return box_head_losses(cat(class_logits), cat(box_regression), self.regions)


def make_roi_box_loss_evaluator(cfg: Any) -> FastRCNNLossComputation:
    """Build the sampling and the losses that MODEL.ROI_HEADS describes."""
    heads = cfg.MODEL.ROI_HEADS
    return FastRCNNLossComputation(
        box_coder=BoxCoder(weights=heads.BBOX_REG_WEIGHTS),
        fg_iou_threshold=heads.FG_IOU_THRESHOLD,
        bg_iou_threshold=heads.BG_IOU_THRESHOLD,
        batch_size_per_image=heads.BATCH_SIZE_PER_IMAGE,
        positive_fraction=heads.POSITIVE_FRACTION,
    )
