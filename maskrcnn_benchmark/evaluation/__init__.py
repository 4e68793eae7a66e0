"""Metrics from predictions: COCO's for boxes, masks, keypoints and proposals, Pascal VOC's and Cityscapes'."""

from __future__ import annotations

from .coco import CocoResults, evaluate_detections
from .columns import Detections
from .dispatch import evaluate, result_kinds
from .figures import Figures, check_expected_results
from .ground_truth import read_coco
from .proposals import evaluate_box_proposals
from .results import (
    load_predictions,
    prepare_for_coco_detection,
    prepare_for_coco_keypoint,
    prepare_for_coco_segmentation,
    save_predictions,
    write_results,
)
from .settings import EvaluationSettings
from .spool import ResultSpool

__all__ = [
    "CocoResults",
    "Detections",
    "EvaluationSettings",
    "Figures",
    "ResultSpool",
    "check_expected_results",
    "evaluate",
    "evaluate_box_proposals",
    "evaluate_detections",
    "load_predictions",
    "prepare_for_coco_detection",
    "prepare_for_coco_keypoint",
    "prepare_for_coco_segmentation",
    "read_coco",
    "result_kinds",
    "save_predictions",
    "write_results",
]
