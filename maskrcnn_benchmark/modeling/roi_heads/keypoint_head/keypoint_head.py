"""Keypoint head. It runs on real regions only, because its cost is per region, unless fixed shapes are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.poolers import boxes_to_rois, boxlists_to_rois
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import Detections
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import SampledRegions
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import heat_maps_to_keypoints
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.loss import keypoint_loss, keypoint_regions
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.roi_keypoint_feature_extractors import (
    make_roi_keypoint_feature_extractor,
)
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.roi_keypoint_predictors import make_roi_keypoint_predictor
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import keypoints_of
from maskrcnn_benchmark.structures.targets import Targets


@registry.ROI_HEADS.register("keypoint")
class ROIKeypointHead(nn.Module):
    """Predicts the keypoints of each region. Source: He et al., Mask R-CNN (2017), section 5.

    Args:
        feature_extractor: (pyramid, rois [R, 5]) -> features.
        predictor: features -> logits [R, P, M, M].
        num_slots: regions of each image that training computes, empty or not; None computes those alone that have a
            keypoint to train.
    """

    def __init__(self, feature_extractor: nn.Module, predictor: nn.Module, *, num_slots: int | None = None) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.num_slots = num_slots

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int, box_feature_extractor: nn.Module | None = None) -> ROIKeypointHead:
        """Build the head that MODEL.ROI_KEYPOINT_HEAD describes; MODEL.ROI_HEADS says how many positives an image has.

        Args:
            cfg: the config.
            in_channels: channels of the pyramid.
            box_feature_extractor: the box head's, which SHARE_BOX_FEATURE_EXTRACTOR takes.
        """
        head, heads = cfg.MODEL.ROI_KEYPOINT_HEAD, cfg.MODEL.ROI_HEADS
        feature_extractor = box_feature_extractor if head.SHARE_BOX_FEATURE_EXTRACTOR else None
        if feature_extractor is None:
            feature_extractor = make_roi_keypoint_feature_extractor(cfg, in_channels)
        most_positives = int(heads.BATCH_SIZE_PER_IMAGE * heads.POSITIVE_FRACTION)
        return cls(
            feature_extractor,
            make_roi_keypoint_predictor(cfg, feature_extractor.out_channels),
            num_slots=most_positives if head.FIXED_SLOTS else None,
        )

    def losses(
        self,
        features: Sequence[Tensor],
        regions: SampledRegions,
        targets: Targets,
        box_features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return {loss_kp} over the positive regions with a visible keypoint.

        Args:
            features: pyramid levels [N, C, H_l, W_l].
            regions: sampled by the box head, [N, S].
            targets: with keypoints.
            box_features: [N * S, C, h, w] of the regions' slots, taken instead of running the extractor.
        """
        chosen = keypoint_regions(regions, targets, num_slots=self.num_slots)
        if box_features is None:
            pooled = self.feature_extractor(features, chosen.rois)
        else:
            pooled = box_features[chosen.index]
        return {"loss_kp": keypoint_loss(self.predictor(pooled), chosen.keypoints, chosen.rois[:, 1:])}

    def add_fields(self, features: Sequence[Tensor], detections: Sequence[BoxList]) -> list[BoxList]:
        """Return the detections with the field keypoints: Keypoints [n, P] whose field logits [n, P] says how sure."""
        rois = boxlists_to_rois(detections)
        maps = self.predictor(self.feature_extractor(features, rois))
        points, logits = heat_maps_to_keypoints(maps, rois[:, 1:])
        counts = [len(boxlist) for boxlist in detections]
        results = []
        for boxlist, *own in zip(detections, points.split(counts), logits.split(counts), strict=True):
            keypoints = keypoints_of(own[0], boxlist.size)
            keypoints.add_field("logits", own[1])
            result = boxlist.copy_with_fields(boxlist.fields())
            result.add_field("keypoints", keypoints)
            results.append(result)
        return results

    def slot_fields(self, features: Sequence[Tensor], detections: Detections) -> dict[str, Tensor]:
        """Return {keypoint_maps}: logits [N, D, P, M, M]; `heat_maps_to_keypoints` reads the keypoints from them."""
        rois = boxes_to_rois(detections.boxes, detections.valid)
        maps = self.predictor(self.feature_extractor(features, rois))
        return {"keypoint_maps": maps.reshape(*detections.labels.shape, *maps.shape[1:])}
