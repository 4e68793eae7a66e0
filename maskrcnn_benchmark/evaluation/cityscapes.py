"""Cityscapes' average precision of instances.

It differs from COCO's: a detection is right at an IoU above the threshold, and every detection above it that is not
the surest of its object is wrong; one that lies mostly on void, on groups or on small objects does not count; the curve
is read once a score and weighted by half the way to its neighbours. Source: the benchmark's own cityscapesscripts,
which gives the same figures.

Letters: R detections and G regions (objects and groups) of one image and class, T thresholds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from .figures import Figures, mean_of_defined
from .lists import CocoLists
from .report import class_table, plain_report, write_report
from .results import write_json, write_results
from .settings import EvaluationSettings

logger = logging.getLogger("maskrcnn_benchmark.inference")

IOU_THRESHOLDS = np.arange(0.5, 1.0, 0.05)
# Objects with fewer pixels count neither when they are found nor when they are missed.
MIN_REGION = 100
_FIRST_INSTANCE = 1000  # smaller ids are groups of objects that were not told apart
_SIMPLE_TYPES = ("bbox", "segm")


@dataclass(frozen=True)
class Overlaps:
    """Detections and ground truth of one image and class.

    Attributes:
        scores: float64 [R].
        sizes: float64 [R], square pixels.
        void: float64 [R], square pixels on void.
        region_sizes: float64 [G].
        is_group: bool [G].
        shared: float64 [R, G], square pixels that both have.
    """

    scores: np.ndarray
    sizes: np.ndarray
    void: np.ndarray
    region_sizes: np.ndarray
    is_group: np.ndarray
    shared: np.ndarray


def evaluate_cityscapes(
    dataset: Any,
    predictions: dict[int, Any],
    output_folder: str | os.PathLike[str] | None,
    settings: EvaluationSettings,
    results: CocoLists | None,
) -> tuple[Figures, CocoLists]:
    """Evaluate predictions on a data set in Cityscapes' own format; see `evaluate`.

    The figures of the task segm are the benchmark's: `AP` over the IoU thresholds 0.50 to 0.95 and all evaluated
    classes, `AP50`, and the same for each class as `AP-<class>`, `AP50-<class>`. The task bbox goes by the same rules
    on the boxes; boxes know no void.

    Args:
        dataset: has `load_instance_ids(i)`, `evaluated_categories`, `void_ids`, and what `write_results` asks for.
        predictions: by ascending data set index.
        output_folder: receives bbox.json, segm.json, result.txt, cityscapes_results.json and evaluation.json; None
            writes nothing.
        settings: `box_only` must be False, `iou_types` are "bbox", "segm".
        results: see `evaluate`.

    Raises:
        ValueError: `box_only` is set, or an IoU type is neither of the two.
    """
    if settings.box_only:
        raise ValueError("proposals are evaluated on data sets in COCO's format: take the name that ends in _cocostyle")
    unknown = set(settings.iou_types) - set(_SIMPLE_TYPES)
    if unknown:
        raise ValueError(f"Cityscapes is evaluated by {' and '.join(_SIMPLE_TYPES)}, not by {', '.join(unknown)}")
    if results is None:
        results = write_results(dataset, predictions, output_folder, iou_types=settings.iou_types)
    figures = Figures(_figures(dataset, list(predictions), results))
    text = _result_text(figures, dataset.evaluated_categories)
    logger.info("%s", text)
    if output_folder is not None:
        Path(output_folder, "result.txt").write_text(text, encoding="utf-8")
        write_json(Path(output_folder, "cityscapes_results.json"), figures.results)
        tables = {task: class_table(own, dataset.evaluated_categories) for task, own in figures.results.items()}
        write_report(Path(output_folder), plain_report("cityscapes", figures, settings, len(predictions), tables))
    return figures, results


def _figures(dataset: Any, indices: Sequence[int], results: CocoLists) -> dict[str, dict[str, float]]:
    """Figures by task and name."""
    id_of = dict(zip(dataset.categories, dataset.contiguous_category_id_to_json_id.values(), strict=True))
    label_ids = [id_of[name] for name in dataset.evaluated_categories]
    by_image: dict[str, dict[Any, list[dict]]] = {iou_type: {} for iou_type in results}
    for iou_type, detections in results.items():
        for detection in detections:
            by_image[iou_type].setdefault(detection["image_id"], []).append(detection)
    overlaps: dict[str, dict[int, list[Overlaps]]] = {t: {each: [] for each in label_ids} for t in results}
    for index in indices:
        truth = GroundTruth(dataset.load_instance_ids(index), label_ids, dataset.void_ids)
        for iou_type, own in by_image.items():
            found = truth.overlaps(own.get(dataset.id_to_img_map[index], []), iou_type)
            for label_id in label_ids:
                overlaps[iou_type][label_id].append(found[label_id])
    figures = {}
    for iou_type, by_class in overlaps.items():
        table = np.array([average_precisions(images) for images in by_class.values()])  # [K, T]
        figures[iou_type] = {"AP": mean_of_defined(table), "AP50": mean_of_defined(table[:, 0])}
        for name, row in zip(dataset.evaluated_categories, table, strict=True):
            figures[iou_type].update({f"AP-{name}": float(row.mean()), f"AP50-{name}": float(row[0])})
    return figures


def _result_text(figures: Figures, categories: Sequence[str]) -> str:
    lines = []
    for iou_type, values in figures.results.items():
        lines.append(f"{iou_type:<16}{'AP':>8}{'AP50':>8}")
        lines += [f"{name:<16}{values[f'AP-{name}']:>8.4f}{values[f'AP50-{name}']:>8.4f}" for name in categories]
        lines.append(f"{'average':<16}{values['AP']:>8.4f}{values['AP50']:>8.4f}")
    return "\n".join(lines) + "\n"


class GroundTruth:
    """The regions of one image.

    Args:
        ids: the instance image, integers [H, W]: label for a group, label * 1000 + number for an object.
        label_ids: labels that are evaluated.
        void_ids: labels that count for nothing.
    """

    def __init__(self, ids: np.ndarray, label_ids: Sequence[int], void_ids: Sequence[int]) -> None:
        present = np.flatnonzero(np.bincount(ids.ravel()))
        labels = np.where(present < _FIRST_INSTANCE, present, present // _FIRST_INSTANCE)
        self.label_ids = list(label_ids)
        self._regions = present[np.isin(labels, label_ids)]
        self._labels = labels[np.isin(labels, label_ids)]
        # Number of the region at each pixel, [H, W]; then come void and all the rest.
        self._void = len(self._regions)
        number_of = np.full(present.max() + 1, self._void + 1, dtype=np.int32)
        number_of[list(set(void_ids) & set(present.tolist()))] = self._void
        number_of[self._regions] = np.arange(self._void)
        self._numbers = number_of[ids]

    def overlaps(self, detections: Sequence[dict], iou_type: str) -> dict[int, Overlaps]:
        """Overlaps with the detections of this image, by label; a mask without a pixel is no detection.

        Args:
            detections: COCO results of this image.
            iou_type: "bbox" or "segm".
        """
        if iou_type == "segm":
            counts = np.array([self._count(item["segmentation"]) for item in detections]).reshape(-1, self._void + 2)
            shared, void, sizes = counts[:, : self._void], counts[:, self._void], counts.sum(axis=1)
            region_sizes = np.bincount(self._numbers.ravel(), minlength=self._void)[: self._void]
        else:
            boxes = np.array([item["bbox"] for item in detections], dtype=np.float64).reshape(-1, 4)
            regions = self._region_boxes()
            shared, void, sizes = _shared_areas(boxes, regions), np.zeros(len(boxes)), boxes[:, 2:].prod(axis=1)
            region_sizes = regions[:, 2:].prod(axis=1)
        scores = np.array([item["score"] for item in detections], dtype=np.float64)
        categories = np.array([item["category_id"] for item in detections], dtype=np.int64)
        found = {}
        for label_id in self.label_ids:
            own, regions = np.flatnonzero((categories == label_id) & (sizes > 0)), self._labels == label_id
            found[label_id] = Overlaps(
                scores=scores[own],
                sizes=sizes[own].astype(np.float64),
                void=void[own].astype(np.float64),
                region_sizes=region_sizes[regions].astype(np.float64),
                is_group=self._regions[regions] < _FIRST_INSTANCE,
                shared=shared[np.ix_(own, np.flatnonzero(regions))].astype(np.float64),
            )
        return found

    def _count(self, rle: dict[str, Any]) -> np.ndarray:
        """Pixels of a mask on each region, on void and on the rest, int64 [regions + 2]."""
        x, y, width, height = map(int, mask_utils.toBbox(rle))
        window = np.s_[y : y + height, x : x + width]
        return np.bincount(self._numbers[window][mask_utils.decode(rle)[window] > 0], minlength=self._void + 2)

    def _region_boxes(self) -> np.ndarray:
        """The tight box of each region as x, y, width, height, float64 [regions, 4]."""
        rows, columns = np.nonzero(self._numbers < self._void)
        numbers = self._numbers[rows, columns]
        ends = np.zeros((self._void, 4), dtype=np.int64)
        ends[:, :2] = max(self._numbers.shape)
        for column, values in enumerate((columns, rows)):
            np.minimum.at(ends[:, column], numbers, values)
            np.maximum.at(ends[:, column + 2], numbers, values)
        ends[:, 2:] += 1 - ends[:, :2]
        return ends.astype(np.float64)


def _shared_areas(boxes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Areas shared by boxes [R, 4] and regions [G, 4], both x, y, width, height; [R, G]."""
    first, second = boxes[:, None], regions[None]
    begin = np.maximum(first[..., :2], second[..., :2])
    end = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    return np.clip(end - begin, 0, None).prod(axis=-1)


def average_precisions(images: Iterable[Overlaps]) -> np.ndarray:
    """Average precision of one class at each IoU threshold, float64 [T]; not a number without ground truth."""
    scores: list[list[np.ndarray]] = [[] for _ in IOU_THRESHOLDS]
    right: list[list[np.ndarray]] = [[] for _ in IOU_THRESHOLDS]
    num_objects = 0
    for image in images:
        num_objects += int((~image.is_group & (image.region_sizes >= MIN_REGION)).sum())
        if not len(image.scores):
            continue
        for t, (own_scores, own_right) in enumerate(_judge(image)):
            scores[t].append(own_scores)
            right[t].append(own_right)
    if not num_objects:
        return np.full(len(IOU_THRESHOLDS), np.nan)
    none = [np.zeros(0)]
    return np.array(
        [
            _area(np.concatenate(s or none), np.concatenate(r or none), num_objects)
            for s, r in zip(scores, right, strict=True)
        ]
    )


def _judge(image: Overlaps) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """For each threshold the scores of the detections that count, and 1 for right ones, 0 for wrong ones."""
    iou = image.shared / (image.sizes[:, None] + image.region_sizes - image.shared)
    is_small = image.region_sizes < MIN_REGION
    # A small group counts on both lists, as in the source.
    ignored = image.void + image.shared @ (image.is_group.astype(np.float64) + is_small)
    is_object = ~image.is_group & ~is_small
    for threshold in IOU_THRESHOLDS:
        hits = iou > threshold
        detection, region = np.nonzero(hits & is_object)
        # The surest of each object first: it is right, the others are wrong.
        order = np.lexsort((-image.scores[detection], region))
        is_first = np.diff(region[order], prepend=-1) > 0
        stray = ~hits.any(axis=1) & (ignored / image.sizes <= threshold)
        own = np.concatenate([image.scores[detection[order]], image.scores[stray]])
        yield own, np.concatenate([is_first, np.zeros(stray.sum())])


def _area(scores: np.ndarray, right: np.ndarray, num_objects: int) -> float:
    """Area under precision over recall, one point a distinct score, beginning at recall 0 with precision 1."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    num_right = np.cumsum(right[order])[last]
    precision = np.concatenate([[1.0], num_right / (last + 1)])
    recall = np.concatenate([[0.0], num_right / num_objects])
    # Each point stands for half of the way to the points beside it.
    ways = np.diff(recall)
    return float((precision * (np.append(ways, 0) + np.append(0, ways)) / 2).sum())
