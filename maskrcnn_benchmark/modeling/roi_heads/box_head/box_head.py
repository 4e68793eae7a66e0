"""Box head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.poolers import boxes_to_rois
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import (
    Candidates,
    Detections,
    class_candidates,
    suppress_candidates,
)
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import SampledRegions, box_head_losses, sample_regions
from maskrcnn_benchmark.modeling.roi_heads.box_head.roi_box_feature_extractors import make_roi_box_feature_extractor
from maskrcnn_benchmark.modeling.roi_heads.box_head.roi_box_predictors import make_roi_box_predictor
from maskrcnn_benchmark.structures.targets import Targets


class ROIBoxHead(nn.Module):
    """Classifies proposals and refines their boxes.

    Args:
        feature_extractor: (pyramid, rois [R, 5]) -> features.
        predictor: features -> (class logits [R, K], box codes [R, 4 K], or [R, 8] that all classes share).
        box_coder: parametrisation of the codes.
        fg_iou_threshold, bg_iou_threshold, batch_size_per_image, positive_fraction: training, see `sample_regions`.
        score_thresh, nms_thresh, detections_per_img: inference, see `suppress_candidates`.
    """

    def __init__(
        self,
        feature_extractor: nn.Module,
        predictor: nn.Module,
        *,
        box_coder: BoxCoder,
        fg_iou_threshold: float = 0.5,
        bg_iou_threshold: float = 0.5,
        batch_size_per_image: int = 512,
        positive_fraction: float = 0.25,
        score_thresh: float = 0.05,
        nms_thresh: float = 0.5,
        detections_per_img: int = 100,
    ) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.box_coder = box_coder
        self.sampling = {
            "fg_iou_threshold": fg_iou_threshold,
            "bg_iou_threshold": bg_iou_threshold,
            "batch_size_per_image": batch_size_per_image,
            "positive_fraction": positive_fraction,
        }
        self.selection = {
            "score_thresh": score_thresh,
            "nms_thresh": nms_thresh,
            "detections_per_img": detections_per_img,
        }

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> ROIBoxHead:
        """Build the head that MODEL.ROI_BOX_HEAD and MODEL.ROI_HEADS describe."""
        heads = cfg.MODEL.ROI_HEADS
        feature_extractor = make_roi_box_feature_extractor(cfg, in_channels)
        return cls(
            feature_extractor,
            make_roi_box_predictor(cfg, feature_extractor.out_channels),
            box_coder=BoxCoder(weights=heads.BBOX_REG_WEIGHTS),
            fg_iou_threshold=heads.FG_IOU_THRESHOLD,
            bg_iou_threshold=heads.BG_IOU_THRESHOLD,
            batch_size_per_image=heads.BATCH_SIZE_PER_IMAGE,
            positive_fraction=heads.POSITIVE_FRACTION,
            score_thresh=heads.SCORE_THRESH,
            nms_thresh=heads.NMS,
            detections_per_img=heads.DETECTIONS_PER_IMG,
        )

    def losses(
        self, features: Sequence[Tensor], proposals: Proposals, targets: Targets
    ) -> tuple[SampledRegions, Tensor, dict[str, Tensor]]:
        """Return the sampled regions, their extracted features [N * S, ...] and {loss_classifier, loss_box_reg}."""
        regions = sample_regions(proposals, targets, box_coder=self.box_coder, **self.sampling)
        box_features = self.feature_extractor(features, boxes_to_rois(regions.boxes, regions.valid))
        logits, deltas = self.predictor(box_features)
        classification_loss, box_loss = box_head_losses(logits, deltas, regions)
        return regions, box_features, {"loss_classifier": classification_loss, "loss_box_reg": box_loss}

    def candidates(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> Candidates:
        """Return a box of each class for each proposal; image_sizes [N, 2] (height, width)."""
        rois = boxes_to_rois(proposals.boxes, proposals.valid)
        logits, deltas = self.predictor(self.feature_extractor(features, rois))
        return class_candidates(logits, deltas, proposals, image_sizes, box_coder=self.box_coder)

    def select(self, candidates: Candidates) -> Detections:
        """Return the best of the candidates, see `suppress_candidates`."""
        return suppress_candidates(candidates, **self.selection)

    def detect(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> Detections:
        """Return the detections of each image; image_sizes [N, 2] (height, width)."""
        return self.select(self.candidates(features, proposals, image_sizes))


def build_roi_box_head(cfg: Any, in_channels: int) -> ROIBoxHead:
    """Build the box head over a pyramid of in_channels channels."""
    return ROIBoxHead.from_config(cfg, in_channels)
