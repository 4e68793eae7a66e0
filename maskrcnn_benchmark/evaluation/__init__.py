"""Metrics from predictions: COCO's numbers for boxes, masks, keypoints and proposals."""

from __future__ import annotations

from .coco import CocoResults, check_expected_results, evaluate, evaluate_detections
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
