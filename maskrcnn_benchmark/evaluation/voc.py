"""Pascal VOC's average precision of boxes.

A detection belongs to the ground truth of its class that it covers best. It is right when their IoU, in inclusive
pixels, is at least 0.5 and no detection of a higher score has that ground truth; one that belongs to a difficult object
counts neither way. Source: the development kit of the challenge, VOCevaldet.m.

Letters: D detections and G ground truths of all images, K classes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .figures import Figures, mean_of_defined
from .lists import CocoLists
from .report import class_table, plain_report, write_report
from .results import write_json, write_results
from .settings import EvaluationSettings

logger = logging.getLogger("maskrcnn_benchmark.inference")

# Recalls at which the metric of 2007 reads the precision. As everywhere, 0.3, 0.6 and 0.7 are a last bit too large.
_ELEVEN_RECALLS = np.arange(0.0, 1.1, 0.1)
_RIGHT, _WRONG, _IGNORED = 1, 0, -1


@dataclass(frozen=True)
class VocBoxes:
    """Boxes of many images: images int64 [D], labels int64 [D], boxes float64 [D, 4] in inclusive xyxy pixels.

    `values` are the scores of detections, float64 [D], or whether a ground truth is difficult, bool [D].
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    values: np.ndarray

    @classmethod
    def gather(cls, boxlists: Iterable[tuple[int, Any]], field: str) -> VocBoxes:
        """Put (image, BoxList with the fields `labels` and `field`) one after the other."""
        images, labels, boxes, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros((0, 4))], []
        for image, boxlist in boxlists:
            images.append(np.full(len(boxlist), image))
            labels.append(boxlist.get_field("labels").cpu().numpy())
            boxes.append(boxlist.convert("xyxy").bbox.cpu().numpy().astype(np.float64).reshape(-1, 4))
            values.append(boxlist.get_field(field).cpu().numpy())
        return cls(*map(np.concatenate, (images, labels, boxes, values or [np.zeros(0)])))


def evaluate_voc(
    dataset: Any,
    predictions: dict[int, Any],
    output_folder: str | os.PathLike[str] | None,
    settings: EvaluationSettings,
    results: CocoLists | None,
) -> tuple[Figures, CocoLists]:
    """Evaluate the boxes of predictions on a data set in Pascal VOC's format; see `evaluate`.

    The figures of the task bbox are `AP`, the mean over the classes by the metric of 2007, `AP_area` by that of 2010
    and later, and `AP-<class>` and `AP_area-<class>`.

    Args:
        dataset: has `categories`, `get_groundtruth(i)` and what `write_results` asks for.
        predictions: by ascending data set index.
        output_folder: receives bbox.json, result.txt, voc_results.json and evaluation.json; None writes nothing.
        settings: `box_only` must be False; all IoU types but bbox are passed over, for VOC's annotations have boxes
            only.
        results: see `evaluate`.

    Raises:
        ValueError: `box_only` is set.
    """
    if settings.box_only:
        raise ValueError("proposals are evaluated on data sets in COCO's format: take the name that ends in _cocostyle")
    others = [iou_type for iou_type in settings.iou_types if iou_type != "bbox"]
    if others:
        logger.info("Pascal VOC is evaluated by boxes; not evaluated: %s", ", ".join(others))
    if results is None:
        results = write_results(dataset, predictions, output_folder, iou_types=("bbox",))
    figures = _figures(dataset, predictions)
    text = _result_text(figures.results["bbox"], dataset.categories)
    logger.info("%s", text)
    if output_folder is not None:
        Path(output_folder, "result.txt").write_text(text, encoding="utf-8")
        write_json(Path(output_folder, "voc_results.json"), figures.results)
        tables = {"bbox": class_table(figures.results["bbox"], dataset.categories)}
        write_report(Path(output_folder), plain_report("voc", figures, settings, len(predictions), tables))
    return figures, results


def _figures(dataset: Any, predictions: dict[int, Any]) -> Figures:
    infos = {index: dataset.get_img_info(index) for index in predictions}
    found = (
        (index, prediction.resize((infos[index]["width"], infos[index]["height"])))
        for index, prediction in predictions.items()
    )
    detections = VocBoxes.gather(found, "scores")
    truths = VocBoxes.gather(((index, dataset.get_groundtruth(index)) for index in predictions), "difficult")
    names = {"AP": True, "AP_area": False}
    by_class = {
        name: voc_average_precisions(detections, truths, len(dataset.categories), eleven_points=eleven_points)
        for name, eleven_points in names.items()
    }
    means = {name: mean_of_defined(values) for name, values in by_class.items()}
    each = {f"{n}-{c}": v for n, values in by_class.items() for c, v in zip(dataset.categories, values, strict=True)}
    return Figures({"bbox": {**means, **each}})


def _result_text(figures: dict[str, float], categories: Sequence[str]) -> str:
    """The published lines: the mean, then the classes in their order, by the metric of 2007."""
    lines = [f"mAP: {figures['AP']:.4f}", *(f"{name:<16}: {figures[f'AP-{name}']:.4f}" for name in categories)]
    return "\n".join(lines) + "\n"


def voc_average_precisions(
    detections: VocBoxes, truths: VocBoxes, num_classes: int, *, iou_threshold: float = 0.5, eleven_points: bool
) -> np.ndarray:
    """Average precision of each class, float64 [K]; not a number for a class without ground truth.

    Args:
        detections: with scores; of equal scores the one that comes first goes first.
        truths: with the mark of difficult ones, which are no ground truth to be found.
        num_classes: K; the labels are 1 .. K.
        iou_threshold: at which a detection may be right.
        eleven_points: the metric of 2007; False: the area under the curve, as from 2010 on.
    """
    order = np.lexsort((-detections.values, detections.labels))
    outcomes = match_detections(detections, truths, iou_threshold=iou_threshold)[order]
    bounds = np.searchsorted(detections.labels[order], np.arange(1, num_classes + 2))
    to_find = np.bincount(truths.labels[~truths.values.astype(bool)], minlength=num_classes + 1)[1:]
    average = _eleven_point_average if eleven_points else _area
    result = np.full(num_classes, np.nan)
    for k in np.flatnonzero(to_find):
        own = outcomes[bounds[k] : bounds[k + 1]]
        own = own[own != _IGNORED]
        right = np.cumsum(own == _RIGHT)
        result[k] = average(right / to_find[k], right / np.arange(1, len(own) + 1))
    return result


def match_detections(detections: VocBoxes, truths: VocBoxes, *, iou_threshold: float) -> np.ndarray:
    """1 for a right detection, 0 for a wrong one, -1 for one of a difficult object; int64 [D]."""
    best, iou = _best_truths(detections, truths)
    outcomes = np.full(len(best), _WRONG)
    covering = np.flatnonzero(iou >= iou_threshold)
    by_score = covering[np.argsort(-detections.values[covering], kind="stable")]
    _, first = np.unique(best[by_score], return_index=True)
    outcomes[by_score[first]] = _RIGHT
    outcomes[covering[truths.values[best[covering]].astype(bool)]] = _IGNORED
    return outcomes


def _best_truths(detections: VocBoxes, truths: VocBoxes) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the first ground truth of its image and class with the largest IoU, and this IoU (or -1)."""
    num_labels = 1 + max(detections.labels.max(initial=0), truths.labels.max(initial=0))
    truth_keys = truths.images * num_labels + truths.labels
    keys = detections.images * num_labels + detections.labels
    order = np.argsort(truth_keys, kind="stable")
    begin = np.searchsorted(truth_keys[order], keys, side="left")
    counts = np.searchsorted(truth_keys[order], keys, side="right") - begin
    # One row for each pair of a detection and a ground truth that it may belong to.
    pair_begin = np.cumsum(counts) - counts
    detection = np.repeat(np.arange(len(keys)), counts)
    truth = order[np.arange(counts.sum()) + np.repeat(begin - pair_begin, counts)]
    iou = _iou(detections.boxes[detection], truths.boxes[truth])
    best, best_iou = np.zeros(len(keys), dtype=np.int64), np.full(len(keys), -1.0)
    np.maximum.at(best_iou, detection, iou)
    is_best = np.flatnonzero(iou == best_iou[detection])[::-1]  # the first one is written last
    best[detection[is_best]] = truth[is_best]
    return best, best_iou


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of pairs of inclusive xyxy boxes [P, 4]."""
    corners = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.clip(corners[1] - corners[0] + 1, 0, None).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared)


def _eleven_point_average(recall: np.ndarray, precision: np.ndarray) -> float:
    best = [precision[recall >= at_least].max(initial=0.0) for at_least in _ELEVEN_RECALLS]
    return float(np.mean(best))


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the precision that is reached at a recall or beyond it."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())
