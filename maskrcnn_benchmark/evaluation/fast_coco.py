"""COCO's evaluation of boxes and masks without Python loops over images; figures equal those of pycocotools to the bit.

Where its twelve lines come from is pycocotools' own code: this class replaces the two steps before it. Letters: K
categories, A area ranges, M limits of detections, T IoU thresholds, R recalls at which precision is read.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .columns import Detections
from .ground_truth import GroundTruth
from .matching import IGNORED, RIGHT, Matching, match


class FastCocoEval(COCOeval):
    """`evaluate`, `accumulate` and `summarize` as in pycocotools; `evalImgs` stays empty, `matching` takes its place.

    Args:
        coco_gt: the ground truth.
        detections: boxes or masks.
    """

    def __init__(self, coco_gt: COCO, detections: Detections) -> None:
        super().__init__(coco_gt, None, detections.iou_type)
        self.detections = detections
        self.matching: Matching | None = None

    def evaluate(self) -> None:
        """Match all detections, as `params` says."""
        params = self.params
        params.imgIds, params.catIds = [*np.unique(params.imgIds)], [*np.unique(params.catIds)]
        params.maxDets = sorted(params.maxDets)
        truth = GroundTruth.from_coco(self.cocoGt, params.iouType, image_ids=params.imgIds, category_ids=params.catIds)
        self.matching = match(
            truth,
            self.detections,
            iou_thresholds=params.iouThrs,
            area_ranges=np.array(params.areaRng, dtype=np.float64),
            max_detections=params.maxDets[-1],
        )
        self._paramsEval = copy.deepcopy(params)
        self.eval = {}

    def accumulate(self, p: Any = None) -> None:
        """Precision [T, R, K, A, M], recall [T, K, A, M] and scores in `eval`; -1 without objects.

        Args:
            p: pycocotools' other parameters; not taken.

        Raises:
            ValueError: `p` is given.
            RuntimeError: `evaluate` has not run.
        """
        if p is not None:
            raise ValueError("set the parameters before evaluate(); other ones cannot be accumulated afterwards")
        if self.matching is None:
            raise RuntimeError("evaluate() has to run before accumulate()")
        params = self.params
        precision, recall, scores = accumulate(self.matching, params.recThrs, params.maxDets)
        self.eval = {
            "params": params,
            "counts": [*precision.shape],
            "precision": precision,
            "recall": recall,
            "scores": scores,
        }


def accumulate(
    matching: Matching, recalls: np.ndarray, limits: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision [T, R, K, A, M], recall [T, K, A, M] and the scores at the read precisions, as pycocotools has them.

    Only right detections are looked at one by one: precision falls between two of them, and recall stays.
    """
    truth = matching.truth
    num_areas, num_thresholds, _ = matching.outcomes.shape
    num_categories = len(truth.category_ids)
    shape = (num_thresholds, len(recalls), num_categories, num_areas, len(limits))
    precision, scores = -np.ones(shape), -np.ones(shape)
    recall = -np.ones((num_thresholds, num_categories, num_areas, len(limits)))
    bounds = np.searchsorted(matching.categories, np.arange(num_categories + 1))
    gt_bounds = np.searchsorted(truth.categories, np.arange(num_categories + 1))
    for k in range(num_categories):
        own = slice(bounds[k], bounds[k + 1])
        order = np.argsort(-matching.scores[own], kind="stable")
        ranks, sorted_scores = matching.ranks[own][order], matching.scores[own][order]
        outcomes = np.take(matching.outcomes[:, :, own], order, axis=2)
        to_find = (~matching.gt_ignored[:, gt_bounds[k] : gt_bounds[k + 1]]).sum(axis=1)
        for a in np.flatnonzero(to_find):
            for m, limit in enumerate(limits):
                few = ranks < limit
                few_outcomes = outcomes[a] if few.all() else outcomes[a][:, few]
                curve = (precision[:, :, k, a, m], recall[:, k, a, m], scores[:, :, k, a, m])
                _read_curves(few_outcomes, sorted_scores[few], int(to_find[a]), recalls, curve)
    return precision, recall, scores


def _read_curves(
    outcomes: np.ndarray, scores: np.ndarray, to_find: int, recalls: np.ndarray, curve: tuple[np.ndarray, ...]
) -> None:
    """Fill precision [T, R], recall [T] and scores [T, R] from outcomes [T, D] by descending score."""
    precision, recall, read_scores = curve
    precision[:], recall[:], read_scores[:] = 0, 0, 0
    if not len(scores):
        return
    counted = np.cumsum(outcomes != IGNORED, axis=1, dtype=np.int32)
    for t, row in enumerate(outcomes):
        right = np.flatnonzero(row == RIGHT)
        num_right = np.arange(1, len(right) + 1, dtype=np.float64)
        reached = num_right / to_find
        # The same sum as in pycocotools, so that the quotient rounds alike.
        exact = num_right / (counted[t, right] + np.spacing(1))
        best = np.maximum.accumulate(exact[::-1])[::-1]
        places = np.searchsorted(reached, recalls, side="left")
        read = places < len(right)
        precision[t, read] = best[places[read]]
        read_scores[t, read] = scores[right[places[read]]]
        read_scores[t, recalls <= 0] = scores[0]
        recall[t] = reached[-1] if len(right) else 0
