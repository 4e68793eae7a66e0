"""evaluation.json: everything that an evaluation knows, in one documented file of bounded size.

The layout is described in docs/evaluation.md. `version` grows when an entry is taken away or changes its meaning, not
when one is added.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pycocotools.cocoeval import COCOeval

from .classes import class_figures, precision_recall, size_buckets
from .columns import Detections
from .errors import BACKGROUND, FOREGROUND, KINDS, ImagePairs, confusion, find_errors, weigh_errors
from .fast_coco import FastCocoEval
from .lists import CocoLists
from .matching import Matching
from .resampling import confidence_intervals, image_scores
from .results import write_bytes
from .settings import EvaluationSettings

logger = logging.getLogger("maskrcnn_benchmark.inference")

FILE_NAME = "evaluation.json"
FORMAT = "maskrcnn_benchmark evaluation"
VERSION = 1
# Detections below it play no part in the confusion of classes and the scores of images.
SCORE_THRESHOLD = 0.5
_MOST_IMAGES = 50
_MOST_CONFUSIONS = 20_000
_MOST_TABLE_ROWS = 100


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write evaluation.json, complete or not at all."""
    write_bytes(folder / FILE_NAME, orjson.dumps(report))


def plain_report(
    kind: str, figures: Any, settings: EvaluationSettings, num_images: int, tables: Mapping[str, Any]
) -> dict[str, Any]:
    """What every evaluation has.

    Args:
        kind: "coco", "voc" or "cityscapes".
        figures: has `results[task][name]`.
        settings: those of the evaluation.
        num_images: with predictions.
        tables: figures of each class by task.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "dataset": settings.dataset_name,
        "num_images": num_images,
        "figures": figures.results,
        "tasks": {task: {"classes": own} for task, own in tables.items()},
    }


def class_table(figures: Mapping[str, float], categories: Sequence[str]) -> list[dict[str, Any]]:
    """Figures named `<figure>-<class>` as one entry a class."""
    kinds = [name for name in figures if f"{name}-{categories[0]}" in figures] if categories else []
    return [{"name": c, **{kind: figures[f"{kind}-{c}"] for kind in kinds}} for c in categories]


def coco_report(
    figures: Any, evaluations: Mapping[str, COCOeval], results: CocoLists, settings: EvaluationSettings, num_images: int
) -> dict[str, Any]:
    """The report of a COCO evaluation; logs the figures of each class.

    Args:
        figures: of the whole.
        evaluations: accumulated, by IoU type; none for proposals.
        results: the detections, by IoU type.
        settings: those of the evaluation.
        num_images: with predictions.
    """
    report = plain_report("coco", figures, settings, num_images, {})
    for iou_type, coco_eval in evaluations.items():
        names = {item["id"]: str(item.get("name", item["id"])) for item in coco_eval.cocoGt.dataset["categories"]}
        by_class = class_figures(coco_eval)
        task: dict[str, Any] = {
            "classes": [{"id": i, "name": names.get(i, str(i)), **own} for i, own in by_class.items()]
        }
        counts: dict[str, int] = {}
        if iou_type != "keypoints":
            matching = _matching_of(coco_eval, results.columns[iou_type])
            counts = dict(zip(coco_eval.params.areaRngLbl, (~matching.gt_ignored).sum(axis=1).tolist(), strict=True))
            _add_counts(task["classes"], matching)
            task |= _analysis(matching, results.columns[iou_type], coco_eval.params.iouThrs, settings)
        task["sizes"] = size_buckets(coco_eval, counts)
        task["precision_recall"] = precision_recall(coco_eval)
        report["tasks"][iou_type] = task
        logger.info("%s", _table_text(iou_type, task["classes"]))
    return report


def _matching_of(coco_eval: COCOeval, detections: Detections) -> Matching:
    """The matches, which pycocotools keeps in a form of its own."""
    if isinstance(coco_eval, FastCocoEval):
        return coco_eval.matching
    again = FastCocoEval(coco_eval.cocoGt, detections)
    again.params = coco_eval.params
    again.evaluate()
    return again.matching


def _add_counts(classes: list[dict[str, Any]], matching: Matching) -> None:
    count = len(classes)
    objects = np.bincount(matching.truth.categories[~matching.gt_ignored[0]], minlength=count)
    detections = np.bincount(matching.categories, minlength=count)
    for entry, num_objects, num_detections in zip(classes, objects.tolist(), detections.tolist(), strict=True):
        entry |= {"num_objects": num_objects, "num_detections": num_detections}


def _analysis(
    matching: Matching, detections: Detections, thresholds: np.ndarray, settings: EvaluationSettings
) -> dict[str, Any]:
    """Mistakes, confusion of classes, confidence intervals, best and worst images."""
    pairs = ImagePairs.make(matching, detections)
    errors = find_errors(matching, pairs)
    counts = np.bincount(errors.kinds[errors.kinds >= 0], minlength=len(KINDS) - 1).tolist()
    weights = weigh_errors(matching, errors)
    return {
        "errors": {
            "iou_threshold": FOREGROUND,
            "background_threshold": BACKGROUND,
            "AP50": weights.pop("AP50"),
            "counts": dict(zip(KINDS, [*counts, int(errors.is_missed.sum())], strict=True)),
            "dAP": weights,
        },
        "confusion": _confusion_entry(confusion(matching, pairs, score_threshold=SCORE_THRESHOLD), matching),
        "confidence": confidence_intervals(matching, thresholds, settings.num_resamples),
        "images": image_scores(matching, score_threshold=SCORE_THRESHOLD, most=_MOST_IMAGES),
    }


def _confusion_entry(table: np.ndarray, matching: Matching) -> dict[str, Any]:
    rows, columns = np.nonzero(table)
    values = table[rows, columns]
    largest = np.argsort(-values, kind="stable")[:_MOST_CONFUSIONS]
    return {
        "iou_threshold": FOREGROUND,
        "score_threshold": SCORE_THRESHOLD,
        "labels": [*matching.truth.category_ids.tolist(), "background"],
        "entries": np.stack([rows, columns, values], axis=1)[largest].tolist(),
        "num_entries": len(values),
    }


def _table_text(iou_type: str, classes: Sequence[Mapping[str, Any]]) -> str:
    names = (
        [name for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "AR20") if name in classes[0]]
        if classes
        else []
    )
    width = max([8, *(len(entry["name"]) for entry in classes)])
    lines = [f"{f'{iou_type} by class':<{width + 9}}" + "".join(f"{name:>8}" for name in names)]
    for entry in classes[:_MOST_TABLE_ROWS]:
        values = "".join(f"{entry[name]:>8.4f}" if entry[name] >= 0 else f"{'-':>8}" for name in names)
        lines.append(f"{entry['name']:<{width + 9}}" + values)
    if len(classes) > _MOST_TABLE_ROWS:
        lines.append(f"and {len(classes) - _MOST_TABLE_ROWS} more in {FILE_NAME}")
    return "\n".join(lines)
