"""Training of the keypoint head. Source: He et al., Mask R-CNN (2017), section 5, normalised by visible keypoints.

Letters: N images, S sampled regions and G ground truths of each, R regions that are trained, P keypoints, M side of a
heat map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.poolers import boxes_to_rois
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import SampledRegions
from maskrcnn_benchmark.structures.keypoint import keypoints_to_heat_map
from maskrcnn_benchmark.structures.targets import Targets


class KeypointRegions(NamedTuple):
    """The regions whose keypoints are trained."""

    rois: Tensor  # [R, 5] image index, -1 for an empty slot, and box
    keypoints: Tensor  # [R, P, 3] of the matched ground truth; zeros in an empty slot
    index: Tensor  # [R] int64 place among the N * S sampled regions


def has_visible_keypoints(keypoints: Tensor, boxes: Tensor) -> Tensor:
    """Return [...] bool: which objects have a visible keypoint inside their own box, its border included.

    Args:
        keypoints: [..., P, 3].
        boxes: [..., 4] xyxy.
    """
    points, visibility = keypoints[..., :2], keypoints[..., 2]
    inside = (points >= boxes[..., None, :2]) & (points <= boxes[..., None, 2:])
    return (inside.all(dim=-1) & (visibility > 0)).any(dim=-1)


@torch.no_grad()
def keypoint_regions(regions: SampledRegions, targets: Targets, *, num_slots: int | None) -> KeypointRegions:
    """Choose the positive regions whose ground truth has a visible keypoint inside its box.

    Args:
        regions: sampled, [N, S].
        targets: with keypoints.
        num_slots: None gives those regions alone, whose number the host has to wait for. A number of slots for each
            image, no smaller than that of its positives, gives R = N * min(num_slots, S), and nobody waits.

    Raises:
        ValueError: when the targets hold no keypoints.
    """
    if targets.keypoints is None:
        raise ValueError(
            "MODEL.KEYPOINT_ON is True, but the targets hold no keypoints; add them or set MODEL.KEYPOINT_ON False"
        )
    num_images, num_targets = targets.boxes.shape[:2]
    # one row more, without a visible point, for regions without an object
    nothing = num_images * num_targets
    keypoints = F.pad(targets.keypoints.flatten(0, 1), (0, 0, 0, 0, 0, 1))
    trainable = F.pad(has_visible_keypoints(targets.keypoints, targets.boxes).flatten(), (0, 1))

    first = num_targets * torch.arange(num_images, device=keypoints.device)[:, None]
    objects = torch.where((regions.labels > 0) & regions.valid, first + regions.matches, nothing)
    chosen = trainable[objects]
    if num_slots is None:
        index = chosen.flatten().nonzero().squeeze(1)
    else:  # the sampler puts the positives of an image first
        index = torch.arange(chosen.numel(), device=chosen.device).reshape(chosen.shape)[:, :num_slots].flatten()
    rois = boxes_to_rois(regions.boxes, chosen)[index]
    return KeypointRegions(rois, keypoints[torch.where(chosen, objects, nothing).flatten()[index]], index)


def keypoint_loss(logits: Tensor, keypoints: Tensor, boxes: Tensor) -> Tensor:
    """Return the cross-entropy (0-d) of the cell in which each keypoint lies, among all cells of its heat map.

    It is the mean over the visible keypoints inside their regions, all images together; 0 when there is none.

    Args:
        logits: [R, P, M, M].
        keypoints: [R, P, 3] of the matched ground truth.
        boxes: [R, 4] regions.
    """
    cells, valid = keypoints_to_heat_map(keypoints, boxes, logits.shape[-1])
    losses = F.cross_entropy(logits.flatten(2).flatten(0, 1).float(), cells.flatten(), reduction="none")
    # without regions the sum still holds every parameter, with gradients of zero
    return torch.where(valid.flatten() > 0, losses, 0.0).sum() / valid.sum().clamp(min=1)
