"""Figures of an evaluation as the platform names them, and its curve of precision over recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
from pycocotools.coco import COCO

from maskrcnn_benchmark.apps.drawing import distinct_colours
from maskrcnn_benchmark.evaluation.columns import Detections
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth
from maskrcnn_benchmark.evaluation.matching import RIGHT, WRONG, match
from maskrcnn_benchmark.evaluation.report import FILE_NAME

IOU_THRESHOLD, SCORE_THRESHOLD = 0.5, 0.05
EVALUATE_CONFIG = {"iou_thr": IOU_THRESHOLD, "conf_thr": SCORE_THRESHOLD}
BOXES, MASKS = "bbox", "segm"
_MOST_DETECTIONS = 100  # of an image and class, as in COCO's evaluation
_MOST_CURVES = 12
# Of the picture: its size, and where the axes begin and end.
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 480, 60, 500, 30, 430
_BLACK, _GREY = (0, 0, 0), (210, 210, 210)


def metric_of(has_masks: bool) -> str:
    """The figure by which the platform compares models."""
    return "maskAP" if has_masks else "mAP"


def platform_figures(results: Mapping[str, Mapping[str, float]], *, has_masks: bool) -> dict[str, float]:
    """The figures of an evaluation, 0 to 1.

    Of masks these are COCO's AP, the mean over IoU from 0.5 to 0.95, for masks and boxes. Of boxes alone mAP is AP at
    IoU 0.5, as in the platform's other executors, and mAR is COCO's AR for 100 detections.

    Args:
        results: as `Tester.results`.
        has_masks: whether masks were evaluated.
    """
    if has_masks:
        figures = {"maskAP": results[MASKS]["AP"], "boxAP": results[BOXES]["AP"]}
    else:
        figures = {"mAP": results[BOXES]["AP50"], "mAR": results[BOXES]["AR100"]}
    # COCO writes -1 where there is no object at all.
    return {name: max(float(value), 0.0) for name, value in figures.items()}


def count_outcomes(coco: COCO, detections: Detections) -> dict[str, int]:
    """Right and wrong detections, and objects that were not found, at IOU_THRESHOLD and from SCORE_THRESHOLD on.

    Args:
        coco: the ground truth.
        detections: of all its images, boxes or masks.
    """
    sure = [entry for entry in detections.to_list() if entry["score"] >= SCORE_THRESHOLD]
    kind = MASKS if detections.masks is not None else BOXES
    truth = GroundTruth.from_coco(coco, kind, image_ids=coco.imgs, category_ids=coco.cats)
    matching = match(
        truth,
        Detections.from_list(sure, kind),
        iou_thresholds=np.array([IOU_THRESHOLD]),
        area_ranges=np.array([[0.0, np.inf]]),
        max_detections=_MOST_DETECTIONS,
    )
    outcomes = matching.outcomes[0, 0]
    num_right = int((outcomes == RIGHT).sum())
    num_objects = int((~matching.gt_ignored[0]).sum())
    return {"tp": num_right, "fp": int((outcomes == WRONG).sum()), "fn": num_objects - num_right}


def read_report(folder: str | Path, task: str) -> dict[str, Any]:
    """What evaluation.json in a folder says of boxes or masks.

    Raises:
        OSError, ValueError, KeyError: it is not there, or not whole.
    """
    return orjson.loads(Path(folder, FILE_NAME).read_bytes())["tasks"][task]


def class_figures(report: Mapping[str, Any], *, has_masks: bool) -> dict[str, float]:
    """Average precision of each class, of the kind that `platform_figures` has for all."""
    name = "AP" if has_masks else "AP50"
    return {entry["name"]: max(float(entry[name]), 0.0) for entry in report["classes"]}


def draw_curves(report: Mapping[str, Any]) -> np.ndarray:
    """Precision over recall at IoU 0.5, uint8 [H, W, 3] BGR: the mean in black, and each of the first classes.

    Args:
        report: of `read_report`.
    """
    picture = np.full((_HEIGHT, _WIDTH, 3), 255, dtype=np.uint8)
    for tick in np.linspace(0, 1, 6).tolist():
        x, y = _place(tick, tick)
        cv2.line(picture, (x, _TOP), (x, _BOTTOM), _GREY)
        cv2.line(picture, (_LEFT, y), (_RIGHT, y), _GREY)
        _write(picture, f"{tick:.1f}", (x - 12, _BOTTOM + 18))
        _write(picture, f"{tick:.1f}", (_LEFT - 32, y + 4))
    cv2.rectangle(picture, (_LEFT, _TOP), (_RIGHT, _BOTTOM), _BLACK)
    _write(picture, "recall", ((_LEFT + _RIGHT) // 2 - 20, _HEIGHT - 10))
    _write(picture, "precision", (_LEFT, _TOP - 10))
    curves = report["precision_recall"]
    names = {str(entry["id"]): entry["name"] for entry in report["classes"]}
    chosen = list(curves["classes"].items())[:_MOST_CURVES]
    colours = distinct_colours(max(len(chosen), 1))
    lines = [(names.get(key, key), values, colour, 1) for (key, values), colour in zip(chosen, colours, strict=False)]
    lines.append(("all classes", curves["mean"], _BLACK, 2))
    for place, (name, values, colour, thickness) in enumerate(lines):
        _draw_line(picture, curves["recall"], values.get(f"{IOU_THRESHOLD:.2f}", ()), colour, thickness)
        y = _TOP + 12 + 22 * place
        cv2.line(picture, (_RIGHT + 15, y - 4), (_RIGHT + 40, y - 4), colour, thickness)
        _write(picture, name if name.isascii() else f"class {place + 1}", (_RIGHT + 48, y))
    return picture


def _draw_line(
    picture: np.ndarray, recall: Sequence[float], precision: Sequence[float], colour: Sequence[int], thickness: int
) -> None:
    points = [_place(x, max(y, 0.0)) for x, y in zip(recall, precision, strict=False)]
    if points:
        cv2.polylines(picture, [np.array(points, dtype=np.int32)], False, tuple(colour), thickness, cv2.LINE_AA)


def _place(recall: float, precision: float) -> tuple[int, int]:
    return round(_LEFT + recall * (_RIGHT - _LEFT)), round(_BOTTOM - precision * (_BOTTOM - _TOP))


def _write(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text[:24], place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, _BLACK, 1, cv2.LINE_AA)
