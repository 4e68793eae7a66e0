"""The heads together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.roi_heads.box_head.box_head import ROIBoxHead, build_roi_box_head
from maskrcnn_benchmark.modeling.roi_heads.mask_head.mask_head import ROIMaskHead, build_roi_mask_head
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets


class CombinedROIHeads(nn.Module):
    """Box head and, if there is one, mask head."""

    def __init__(self, box: ROIBoxHead, mask: ROIMaskHead | None = None) -> None:
        super().__init__()
        self.box = box
        if mask is not None:
            self.mask = mask
        self.has_mask = mask is not None

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> CombinedROIHeads:
        """Build the heads; MODEL.MASK_ON adds the mask head."""
        mask = build_roi_mask_head(cfg, in_channels) if cfg.MODEL.MASK_ON else None
        return cls(build_roi_box_head(cfg, in_channels), mask)

    def losses(self, features: Sequence[Tensor], proposals: Proposals, targets: Targets) -> dict[str, Tensor]:
        """Return the heads' losses, each 0-d."""
        regions, losses = self.box.losses(features, proposals, targets)
        if self.has_mask:
            losses |= self.mask.losses(features, regions, targets)
        return losses

    def detect(self, features: Sequence[Tensor], proposals: Proposals, images: ImageList) -> list[BoxList]:
        """Return the detections of each image; of the images only their sizes are used."""
        detections = self.box.detect(features, proposals, images.sizes).to_boxlists(images.image_sizes)
        return self.mask.add_masks(features, detections) if self.has_mask else detections


def build_roi_heads(cfg: Any, in_channels: int) -> CombinedROIHeads | None:
    """Build the heads over a pyramid of in_channels channels; None with MODEL.RPN_ONLY or RETINANET_ON."""
    return None if cfg.MODEL.RPN_ONLY or cfg.MODEL.RETINANET_ON else CombinedROIHeads.from_config(cfg, in_channels)
