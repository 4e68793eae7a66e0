"""Which mistakes cost how much AP, and which classes are taken for which.

The kinds of mistakes and the way to weigh them are those of Bolya et al., "TIDE: A General Toolbox for Identifying
Object Detection Errors" (2020): AP at IoU 0.5 is computed again as if the mistakes of one kind, and no others, were put
right. Detections that count neither way are no mistakes here.

Letters: D detections in the order of images, then descending scores, G objects, P pairs of a detection and an object of
one image, K categories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from maskrcnn_benchmark.ops import match_detections

from .columns import Detections
from .matching import IGNORED, RIGHT, Matching, overlaps

FOREGROUND, BACKGROUND = 0.5, 0.1
# Classification, localisation, both, duplicate, background, missed.
KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
_CLS, _LOC, _BOTH, _DUPE, _BKG = range(5)
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class ImagePairs:
    """All detections and objects of each image, whatever their classes.

    Attributes:
        order: int64 [D], the detections of a Matching by image and descending score.
        gt_order: int64 [G], its objects by image.
        dt_groups, gt_groups: int64 [I + 1], where each image begins.
        ious: float64 [P], image by image as ops.rle_overlaps gives them.
    """

    order: np.ndarray
    gt_order: np.ndarray
    dt_groups: np.ndarray
    gt_groups: np.ndarray
    ious: np.ndarray

    @classmethod
    def make(cls, matching: Matching, detections: Detections) -> ImagePairs:
        """Compute the overlaps.

        Args:
            matching: at least at IoU 0.5, over objects of all sizes.
            detections: which it was made of.
        """
        truth, images = matching.truth, np.arange(len(matching.truth.image_ids) + 1)
        order = np.lexsort((-matching.scores, matching.images))
        gt_order = np.argsort(truth.images, kind="stable")
        dt_groups = np.searchsorted(matching.images[order], images)
        gt_groups = np.searchsorted(truth.images[gt_order], images)
        ious = overlaps(truth, detections, matching.rows[order], gt_order, dt_groups, gt_groups)
        return cls(order, gt_order, dt_groups, gt_groups, ious)

    def members(self) -> tuple[np.ndarray, np.ndarray]:
        """Place in `order`, and object, of each pair, int64 [P]; the pairs of one detection stand together."""
        num_objects = np.repeat(np.diff(self.gt_groups), np.diff(self.dt_groups))
        place = np.repeat(np.arange(len(num_objects)), num_objects)
        first = np.repeat(self.gt_groups[:-1], np.diff(self.dt_groups))
        within = np.arange(len(place)) - np.repeat(np.cumsum(num_objects) - num_objects, num_objects)
        return place, self.gt_order[first[place] + within]


@dataclass(frozen=True)
class Errors:
    """The mistakes among the detections of a Matching, at IoU 0.5.

    Attributes:
        kinds: int64 [D], place in KINDS, or -1.
        targets: int64 [D], the object that a Cls or Loc was meant for, or -1.
        winners: bool [D], would be right if it were put right: its object is free, and nobody surer would take it.
        is_missed: bool [G], objects that nothing found nor would find.
        is_found: bool [G].
    """

    kinds: np.ndarray
    targets: np.ndarray
    winners: np.ndarray
    is_missed: np.ndarray
    is_found: np.ndarray


def find_errors(matching: Matching, pairs: ImagePairs) -> Errors:
    """Sort the mistakes into kinds; each is of the first kind that fits, in the order Loc, Cls, Dupe, Bkg, Both."""
    truth, order = matching.truth, pairs.order
    outcome, found_object = matching.outcomes[0, 0][order], matching.matches[0, 0][order]
    is_found = np.zeros(len(truth), dtype=bool)
    is_found[found_object[outcome == RIGHT]] = True
    place, gt = pairs.members()
    kept = ~truth.is_crowd[gt]
    place, gt, iou = place[kept], gt[kept], pairs.ious[kept]
    same = truth.categories[gt] == matching.categories[order][place]
    count = len(order)
    best_same, same_object = _best(np.where(same, iou, 0.0), place, gt, count)
    best_other, other_object = _best(np.where(same, 0.0, iou), place, gt, count)
    best_found, _ = _best(np.where(same & is_found[gt], iou, 0.0), place, gt, count)
    best_any, any_object = _best(iou, place, gt, count)
    tests = {
        _LOC: (best_same >= BACKGROUND) & (best_same <= FOREGROUND),
        _CLS: best_other >= FOREGROUND,
        _DUPE: best_found >= FOREGROUND,
        _BKG: (best_any <= BACKGROUND) | (any_object < 0),
    }
    kinds = np.select([*tests.values()], [*tests], default=_BOTH)
    kinds[(outcome == RIGHT) | (outcome == IGNORED)] = -1
    targets = np.where(kinds == _LOC, same_object, np.where(kinds == _CLS, other_object, -1))
    hopeful = np.flatnonzero((targets >= 0) & ~is_found[targets])
    claimed, first = np.unique(targets[hopeful], return_index=True)  # the surest, which stands first
    winners = np.zeros(count, dtype=bool)
    winners[hopeful[first]] = True
    is_missed = ~truth.is_crowd & ~is_found
    is_missed[claimed] = False
    return Errors(*(_back(values, order) for values in (kinds, targets, winners)), is_missed, is_found)


def _best(values: np.ndarray, place: np.ndarray, gt: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest value of each detection (0 without pairs), and the first object that has it (-1), [count]."""
    best, objects = np.zeros(count), np.full(count, -1)
    np.maximum.at(best, place, values)
    at_best = np.flatnonzero(values == best[place])[::-1]  # the first one is written last
    objects[place[at_best]] = gt[at_best]
    return best, objects


def _back(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """From the order of the pairs to that of the Matching."""
    result = np.empty_like(values)
    result[order] = values
    return result


def weigh_errors(matching: Matching, errors: Errors) -> dict[str, float]:
    """AP50 that is lost to each kind of mistake, 0 to 1, by its name in KINDS; besides AP50 itself.

    `FalsePos` is what would be won if all wrong detections were surer wrong than right ones right, `FalseNeg` if all
    objects that were not found had not been there.
    """
    outcome, categories, scores = matching.outcomes[0, 0], matching.categories, matching.scores
    counted, right = outcome != IGNORED, outcome == RIGHT
    truth = matching.truth
    num_classes = len(truth.category_ids)
    to_find = np.bincount(truth.categories[~truth.is_crowd], minlength=num_classes)
    used = to_find > 0

    by_score = np.argsort(-scores, kind="stable")

    def average(keep: np.ndarray, is_right: np.ndarray, labels: np.ndarray, objects: np.ndarray) -> float:
        kept = by_score[keep[by_score]]
        order = kept[np.argsort(labels[kept], kind="stable")]
        bounds = np.searchsorted(labels[order], np.arange(num_classes + 1))
        outcomes = is_right[order]
        own = [_average_precision(outcomes[bounds[k] : bounds[k + 1]], objects[k]) for k in np.flatnonzero(used)]
        defined = [value for value in own if value is not None]
        return float(np.mean(defined)) if defined else 0.0

    base = average(counted, right, categories, to_find)
    lost = {"AP50": base}
    for kind, name in enumerate(KINDS[:-1]):
        is_kind = errors.kinds == kind
        mended = is_kind & errors.winners
        labels = np.where(mended, truth.categories[errors.targets], categories)
        lost[name] = average(counted & (~is_kind | mended), right | mended, labels, to_find) - base
    missed = np.bincount(truth.categories[errors.is_missed], minlength=num_classes)
    lost["Miss"] = average(counted, right, categories, to_find - missed) - base
    found = np.bincount(truth.categories[errors.is_found], minlength=num_classes)
    lost["FalsePos"] = average(counted & right, right, categories, to_find) - base
    lost["FalseNeg"] = average(counted, right, categories, found) - base
    return {name: value if name == "AP50" else max(value, 0.0) for name, value in lost.items()}


def _average_precision(is_right: np.ndarray, num_objects: int) -> float | None:
    """AP of one class, whose detections descend by score.

    0 where all its objects are gone but detections are left, None where nothing is left.
    """
    if not num_objects:
        return 0.0 if len(is_right) else None
    right = np.flatnonzero(is_right)
    num_right = np.arange(1, len(right) + 1)
    best = np.maximum.accumulate((num_right / (right + 1))[::-1])[::-1]
    places = np.searchsorted(num_right / num_objects, _RECALLS)
    return float(np.append(best, 0.0)[np.minimum(places, len(best))].mean())


def confusion(matching: Matching, pairs: ImagePairs, *, score_threshold: float) -> np.ndarray:
    """Objects of each class by the class that was seen in them, int64 [K + 1, K + 1].

    Sure detections choose the object that they cover best, whatever its class, at IoU 0.5. The last row counts
    detections without an object, the last column objects without a detection.
    """
    truth = matching.truth
    num_classes = len(truth.category_ids)
    sure = matching.scores[pairs.order] >= score_threshold
    place, _ = pairs.members()
    before = np.concatenate([[0], np.cumsum(sure)])
    crowd = truth.is_crowd[pairs.gt_order].view(np.uint8)
    found = match_detections(
        torch.from_numpy(pairs.ious[sure[place]]),
        dt_groups=torch.from_numpy(before[pairs.dt_groups]),
        gt_groups=torch.from_numpy(pairs.gt_groups),
        gt_ignored=torch.from_numpy(crowd[None].copy()),
        gt_crowd=torch.from_numpy(crowd),
        thresholds=torch.tensor([FOREGROUND], dtype=torch.float64),
    ).numpy()[0, 0]
    gt_classes = truth.categories[pairs.gt_order]
    seen = matching.categories[pairs.order][sure]
    on_crowd = (found >= 0) & crowd[found].astype(bool) if len(crowd) else np.zeros(len(found), dtype=bool)
    table = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    rows = np.where(found >= 0, gt_classes[found], num_classes) if len(gt_classes) else np.full(len(found), num_classes)
    np.add.at(table, (rows[~on_crowd], seen[~on_crowd]), 1)
    is_missed = crowd == 0
    is_missed[found[found >= 0]] = False
    np.add.at(table[:, num_classes], gt_classes[is_missed], 1)
    return table
