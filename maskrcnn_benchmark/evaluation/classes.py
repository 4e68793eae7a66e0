"""COCO's figures class by class, by size of the objects, and as curves, out of an accumulated COCOeval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

# Of more classes than this the curves of three IoU thresholds are kept, not of all ten.
_MANY_CLASSES = 100
_FEW_THRESHOLDS = (0.5, 0.75, 0.95)
_AREA_SUFFIXES = {"small": "s", "medium": "m", "large": "l"}


def class_figures(coco_eval: COCOeval) -> dict[int, dict[str, float]]:
    """Figures of each category id under the names of the whole: AP, AP50, ..., AR1, ...; -1 without objects."""
    params, precision, recall = coco_eval.params, coco_eval.eval["precision"], coco_eval.eval["recall"]
    areas, last = params.areaRngLbl, len(params.maxDets) - 1
    thresholds = {"50": _place(params.iouThrs, 0.5), "75": _place(params.iouThrs, 0.75)}
    figures = {}
    for k, category_id in enumerate(params.catIds):
        own = {"AP": _mean(precision[:, :, k, 0, last])}
        own |= {f"AP{name}": _mean(precision[t, :, k, 0, last]) for name, t in thresholds.items()}
        for a, label in enumerate(areas[1:], start=1):
            own[f"AP{_AREA_SUFFIXES[label]}"] = _mean(precision[:, :, k, a, last])
        own |= {f"AR{limit}": _mean(recall[:, k, 0, m]) for m, limit in enumerate(params.maxDets)}
        for a, label in enumerate(areas[1:], start=1):
            own[f"AR{_AREA_SUFFIXES[label]}"] = _mean(recall[:, k, a, last])
        figures[int(category_id)] = own
    return figures


def size_buckets(coco_eval: COCOeval, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """AP, AP50, AP75 and AR over all classes by size of the objects.

    Args:
        coco_eval: accumulated.
        counts: objects to find by name of the range, where known.
    """
    params, precision, recall = coco_eval.params, coco_eval.eval["precision"], coco_eval.eval["recall"]
    half, three_quarters, last = _place(params.iouThrs, 0.5), _place(params.iouThrs, 0.75), len(params.maxDets) - 1
    return [
        {
            "name": name,
            "min_area": float(low),
            "max_area": float(high),
            "num_objects": counts.get(name),
            "AP": _mean(precision[:, :, :, a, last]),
            "AP50": _mean(precision[half, :, :, a, last]),
            "AP75": _mean(precision[three_quarters, :, :, a, last]),
            "AR": _mean(recall[:, :, a, last]),
        }
        for a, (name, (low, high)) in enumerate(zip(params.areaRngLbl, params.areaRng, strict=True))
    ]


def precision_recall(coco_eval: COCOeval) -> dict[str, Any]:
    """Precision at 101 recalls by IoU threshold: the mean of the classes, and each class that has objects."""
    params, precision = coco_eval.params, coco_eval.eval["precision"][:, :, :, 0, -1]  # [T, R, K]
    chosen = range(len(params.iouThrs))
    if len(params.catIds) > _MANY_CLASSES:
        chosen = [_place(params.iouThrs, threshold) for threshold in _FEW_THRESHOLDS]
    present = [k for k in range(len(params.catIds)) if precision[0, 0, k] > -1]
    names = {t: f"{params.iouThrs[t]:.2f}" for t in chosen}
    return {
        "recall": [round(float(value), 2) for value in params.recThrs],
        "mean": {name: _rounded(precision[t][:, present].mean(axis=1)) for t, name in names.items() if present},
        "classes": {
            str(int(params.catIds[k])): {name: _rounded(precision[t, :, k]) for t, name in names.items()}
            for k in present
        },
    }


def _place(thresholds: np.ndarray, value: float) -> int:
    return int(np.abs(np.asarray(thresholds) - value).argmin())


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
