"""Mask head. It runs on real regions only, because its cost is per region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.poolers import boxes_to_rois, boxlists_to_rois
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import SampledRegions
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import MaskPostProcessor, make_roi_mask_post_processor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import mask_loss, mask_targets
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_feature_extractors import make_roi_mask_feature_extractor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_predictors import make_roi_mask_predictor
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.targets import Targets


class ROIMaskHead(nn.Module):
    """Predicts a mask for each region.

    Args:
        feature_extractor: (pyramid, rois [P, 5]) -> features.
        predictor: features -> logits [P, K, M, M].
        post_processor: adds masks to detections.
        resolution: M, side of a training target.
    """

    def __init__(
        self,
        feature_extractor: nn.Module,
        predictor: nn.Module,
        post_processor: MaskPostProcessor,
        *,
        resolution: int = 28,
    ) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.post_processor = post_processor
        self.resolution = resolution

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> ROIMaskHead:
        """Build the head that MODEL.ROI_MASK_HEAD describes."""
        feature_extractor = make_roi_mask_feature_extractor(cfg, in_channels)
        return cls(
            feature_extractor,
            make_roi_mask_predictor(cfg, feature_extractor.out_channels),
            make_roi_mask_post_processor(cfg),
            resolution=cfg.MODEL.ROI_MASK_HEAD.RESOLUTION,
        )

    def losses(self, features: Sequence[Tensor], regions: SampledRegions, targets: Targets) -> dict[str, Tensor]:
        """Return {loss_mask} over the positive regions."""
        positive = (regions.labels > 0) & regions.valid
        # host sync: the number of positives decides how many regions the head works on
        index = positive.flatten().nonzero().squeeze(1)
        num_slots, num_targets = positive.shape[1], targets.boxes.shape[1]
        image_index = index.div(num_slots, rounding_mode="floor")
        rois = boxes_to_rois(regions.boxes, positive)[index]
        instances = image_index * num_targets + regions.matches.flatten()[index]
        masks = mask_targets(targets, instances, rois[:, 1:], resolution=self.resolution)
        logits = self.predictor(self.feature_extractor(features, rois))
        return {"loss_mask": mask_loss(logits, regions.labels.flatten()[index], masks)}

    def add_masks(self, features: Sequence[Tensor], detections: Sequence[BoxList]) -> list[BoxList]:
        """Return the detections with field mask."""
        logits = self.predictor(self.feature_extractor(features, boxlists_to_rois(detections)))
        return self.post_processor(logits, detections)


def build_roi_mask_head(cfg: Any, in_channels: int) -> ROIMaskHead:
    """Build the mask head over a pyramid of in_channels channels."""
    return ROIMaskHead.from_config(cfg, in_channels)
