"""Mask head. It runs on real regions only, because its cost is per region, unless fixed shapes are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.poolers import boxes_to_rois, boxlists_to_rois
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import Detections
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import SampledRegions
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import (
    MaskPostProcessor,
    make_roi_mask_post_processor,
    mask_probabilities,
)
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import mask_loss, mask_targets, positive_regions
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_feature_extractors import make_roi_mask_feature_extractor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_predictors import make_roi_mask_predictor
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.targets import Targets


@registry.ROI_HEADS.register("mask")
class ROIMaskHead(nn.Module):
    """Predicts a mask for each region.

    Args:
        feature_extractor: (pyramid, rois [P, 5]) -> features.
        predictor: features -> logits [P, K, M, M].
        post_processor: adds masks to detections.
        resolution: M, side of a training target.
        num_slots: regions of each image that training computes, empty or not; None computes the positives alone.
    """

    def __init__(
        self,
        feature_extractor: nn.Module,
        predictor: nn.Module,
        post_processor: MaskPostProcessor,
        *,
        resolution: int = 28,
        num_slots: int | None = None,
    ) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.post_processor = post_processor
        self.resolution = resolution
        self.num_slots = num_slots

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int, box_feature_extractor: nn.Module | None = None) -> ROIMaskHead:
        """Build the head that MODEL.ROI_MASK_HEAD describes; MODEL.ROI_HEADS says how many positives an image has."""
        heads, head = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_MASK_HEAD
        most_positives = int(heads.BATCH_SIZE_PER_IMAGE * heads.POSITIVE_FRACTION)
        feature_extractor = box_feature_extractor if head.SHARE_BOX_FEATURE_EXTRACTOR else None
        if feature_extractor is None:
            feature_extractor = make_roi_mask_feature_extractor(cfg, in_channels)
        return cls(
            feature_extractor,
            make_roi_mask_predictor(cfg, feature_extractor.out_channels),
            make_roi_mask_post_processor(cfg),
            resolution=head.RESOLUTION,
            num_slots=most_positives if head.FIXED_SLOTS else None,
        )

    def losses(
        self,
        features: Sequence[Tensor],
        regions: SampledRegions,
        targets: Targets,
        box_features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return {loss_mask} over the positive regions.

        Args:
            features: maps [N, C, H_l, W_l].
            regions: sampled, [N, S].
            targets: with polygons.
            box_features: [N * S, C, h, w] of the regions' slots, taken instead of running the extractor.
        """
        chosen = positive_regions(regions, num_targets=targets.boxes.shape[1], num_slots=self.num_slots)
        masks = mask_targets(targets, chosen.instances, chosen.rois[:, 1:], resolution=self.resolution)
        if box_features is None:
            region_features = self.feature_extractor(features, chosen.rois)
        else:
            region_features = box_features[chosen.slots]
        logits = self.predictor(region_features)
        valid = chosen.valid if self.num_slots is not None else None
        return {"loss_mask": mask_loss(logits, chosen.labels, masks, valid)}

    def add_fields(self, features: Sequence[Tensor], detections: Sequence[BoxList]) -> list[BoxList]:
        """Return the detections with field mask."""
        logits = self.predictor(self.feature_extractor(features, boxlists_to_rois(detections)))
        return self.post_processor(logits, detections)

    def slot_fields(self, features: Sequence[Tensor], detections: Detections) -> dict[str, Tensor]:
        """Return {masks}: probabilities [N, D, M, M] of the class of each slot."""
        rois = boxes_to_rois(detections.boxes, detections.valid)
        logits = self.predictor(self.feature_extractor(features, rois))
        masks = mask_probabilities(logits, detections.labels.flatten())
        return {"masks": masks.reshape(*detections.labels.shape, *masks.shape[2:])}
