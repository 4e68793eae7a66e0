"""Metrics from predictions: COCO's for boxes, masks, keypoints and proposals, Pascal VOC's and Cityscapes'."""

from __future__ import annotations

from .coco import CocoResults, check_expected_results, evaluate_detections
from .dispatch import evaluate
from .figures import Figures
from .proposals import evaluate_box_proposals
from .results import (
    load_predictions,
    prepare_for_coco_detection,
    prepare_for_coco_keypoint,
    prepare_for_coco_segmentation,
    save_predictions,
    write_results,
)

__all__ = [
    "CocoResults",
    "Figures",
    "check_expected_results",
    "evaluate",
    "evaluate_box_proposals",
    "evaluate_detections",
    "load_predictions",
    "prepare_for_coco_detection",
    "prepare_for_coco_keypoint",
    "prepare_for_coco_segmentation",
    "save_predictions",
    "write_results",
]
