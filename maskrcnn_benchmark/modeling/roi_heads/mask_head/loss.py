"""Training of the mask head. Source: He et al., Mask R-CNN (2017), section 3."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.structures.targets import Targets


def mask_targets(targets: Targets, instances: Tensor, boxes: Tensor, *, resolution: int) -> Tensor:
    """Rasterise ground-truth polygons inside the regions matched to them.

    Args:
        targets: with polygons.
        instances: [P] int64, slot n * G + g of the matched ground truth.
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


def mask_loss(logits: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
    """Return the mean binary cross-entropy (0-d) over the pixels of the true classes' masks; 0 without regions.

    Args:
        logits: [P, K, M, M].
        labels: [P] int64 true classes.
        masks: [P, M, M] targets.
    """
    own = logits.gather(1, labels[:, None, None, None].expand(-1, 1, *logits.shape[2:])).squeeze(1).float()
    if own.numel() == 0:
        return own.sum()  # keeps every parameter in the graph, with gradients of zero
    return F.binary_cross_entropy_with_logits(own, masks)
