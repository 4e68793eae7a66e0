"""Which detection finds which object, for all images and categories at once, by COCO's rules.

Letters: D detections and G objects that are evaluated, A area ranges, T IoU thresholds, N groups (the detections and
objects of one image and category).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch

from maskrcnn_benchmark.ops import match_detections, rle_areas, rle_overlaps

from .columns import Detections, Masks
from .ground_truth import GroundTruth

logger = logging.getLogger("maskrcnn_benchmark.inference")

RIGHT, WRONG, IGNORED = 1, 0, 2


@dataclass(frozen=True)
class Matching:
    """Detections in the order of categories, then images, then descending scores; objects as in `truth`.

    Attributes:
        truth: the objects.
        rows: int64 [D], the row of each in the Detections.
        images: int64 [D], place in `truth.image_ids`.
        categories: int64 [D], place in `truth.category_ids`.
        scores: float64 [D].
        ranks: int64 [D], 0 for the surest of its image and category.
        matches: int32 [A, T, D], the object found, or -1.
        outcomes: uint8 [A, T, D], RIGHT, WRONG, or IGNORED: counts neither way.
        gt_ignored: bool [A, G], objects that need not be found.
    """

    truth: GroundTruth
    rows: np.ndarray
    images: np.ndarray
    categories: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    matches: np.ndarray
    outcomes: np.ndarray
    gt_ignored: np.ndarray


def match(
    truth: GroundTruth,
    detections: Detections,
    *,
    iou_thresholds: np.ndarray,
    area_ranges: np.ndarray,
    max_detections: int,
) -> Matching:
    """Match the surest detections of each image and category.

    Args:
        truth: with boxes or masks, as the detections.
        detections: of any images and categories; those that `truth` does not name are left out.
        iou_thresholds: float64 [T].
        area_ranges: float64 [A, 2], in square pixels; both ends belong to the range.
        max_detections: an image and category.
    """
    rows, images, categories = _known(truth, detections)
    order = np.lexsort((-detections.scores[rows], images, categories))
    rows, images, categories = rows[order], images[order], categories[order]
    keys = categories * len(truth.image_ids) + images
    first = np.searchsorted(keys, keys)
    kept = np.arange(len(keys)) - first < max_detections
    ranks = (np.arange(len(keys)) - first)[kept]
    rows, images, categories, keys = rows[kept], images[kept], categories[kept], keys[kept]
    gt_keys = truth.categories * len(truth.image_ids) + truth.images
    gt_ignored = truth.is_crowd | (truth.areas < area_ranges[:, :1]) | (truth.areas > area_ranges[:, 1:])
    pairs = pair_up(keys, gt_keys)
    dt_groups, gt_groups = map(torch.from_numpy, pairs)
    matches = match_detections(
        torch.from_numpy(overlaps(truth, detections, rows, np.arange(len(truth)), *pairs)),
        dt_groups=dt_groups,
        gt_groups=gt_groups,
        gt_ignored=torch.from_numpy(gt_ignored.view(np.uint8)),
        gt_crowd=torch.from_numpy(truth.is_crowd.view(np.uint8)),
        thresholds=torch.from_numpy(np.ascontiguousarray(iou_thresholds, dtype=np.float64)),
    ).numpy()
    areas = areas_of(detections, rows)
    outside = (areas < area_ranges[:, :1]) | (areas > area_ranges[:, 1:])
    return Matching(
        truth=truth,
        rows=rows,
        images=images,
        categories=categories,
        scores=detections.scores[rows],
        ranks=ranks,
        matches=matches,
        outcomes=_outcomes(matches, gt_ignored, outside, truth.is_nameless),
        gt_ignored=gt_ignored,
    )


def _known(truth: GroundTruth, detections: Detections) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the detections whose image and category are evaluated, and these as places, int64."""
    images, categories = (
        _places(known, given)
        for known, given in ((truth.image_ids, detections.image_ids), (truth.category_ids, detections.category_ids))
    )
    rows = np.flatnonzero((images >= 0) & (categories >= 0))
    return rows, images[rows], categories[rows]


def _places(known: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Place of each id among ascending ones, or -1."""
    if not len(known) or not len(given):
        return np.full(len(given), -1)
    places = np.minimum(np.searchsorted(known, given), len(known) - 1)
    return np.where(known[places] == given, places, -1)


def pair_up(dt_keys: np.ndarray, gt_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the groups begin among detections and objects with ascending keys, int64 [N + 1] each."""
    keys = np.union1d(dt_keys, gt_keys)
    bounds = (
        np.append(np.searchsorted(own, keys, side="left"), len(own)).astype(np.int64) for own in (dt_keys, gt_keys)
    )
    dt_groups, gt_groups = bounds
    return dt_groups, gt_groups


def areas_of(detections: Detections, rows: np.ndarray) -> np.ndarray:
    """Area of boxes or masks in square pixels, float64."""
    if detections.boxes is not None:
        return detections.boxes[rows, 2] * detections.boxes[rows, 3]
    areas = rle_areas(torch.from_numpy(detections.masks.text), torch.from_numpy(detections.masks.offsets))
    return areas.numpy()[rows].astype(np.float64)


def overlaps(
    truth: GroundTruth,
    detections: Detections,
    dt_rows: np.ndarray,
    gt_rows: np.ndarray,
    dt_groups: np.ndarray,
    gt_groups: np.ndarray,
) -> np.ndarray:
    """IoU, with crowds over the area of the detection, of all pairs of each group, as ops.rle_overlaps gives them.

    Args:
        truth, detections: objects and detections, with boxes or masks both.
        dt_rows, gt_rows: which of them, group by group.
        dt_groups, gt_groups: where the groups begin, int64 [N + 1].
    """
    dt, gt = _pairs(dt_groups, gt_groups)
    crowd = truth.is_crowd[gt_rows]
    if detections.boxes is not None:
        return box_ious(detections.boxes[dt_rows[dt]], truth.boxes[gt_rows[gt]], crowd[gt])
    # Only masks of groups with objects are looked at.
    counts = np.diff(dt_groups) * (np.diff(gt_groups) > 0)
    used = np.repeat(np.diff(gt_groups) > 0, np.diff(dt_groups))
    dt_masks, gt_masks = detections.masks.take(dt_rows[used]), truth.masks.take(gt_rows)
    ious = rle_overlaps(
        *_tensors(dt_masks),
        *_tensors(gt_masks),
        dt_groups=torch.from_numpy(np.concatenate([[0], counts.cumsum()])),
        gt_groups=torch.from_numpy(gt_groups),
        gt_crowd=torch.from_numpy(crowd.view(np.uint8)),
    ).numpy()
    differ = (detections.masks.sizes[dt_rows[dt]] != truth.masks.sizes[gt_rows[gt]]).any(axis=1)
    if differ.any():
        logger.warning("%d pairs of masks are of images of different sizes; they do not match", differ.sum())
        ious[differ] = -1  # pycocotools' mark
    return ious


def _pairs(dt_groups: np.ndarray, gt_groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Detection and object of each pair, int64, group by group and detection by detection."""
    per_detection = np.repeat(np.diff(gt_groups), np.diff(dt_groups))  # [D]
    detection = np.repeat(np.arange(len(per_detection)), per_detection)
    first_object = np.repeat(gt_groups[:-1], np.diff(dt_groups))
    begin = np.cumsum(per_detection) - per_detection
    return detection, np.arange(len(detection)) + np.repeat(first_object - begin, per_detection)


def box_ious(first: np.ndarray, second: np.ndarray, is_crowd: np.ndarray) -> np.ndarray:
    """IoU of pairs of boxes [P, 4] as x, y, width, height, rounded as pycocotools does; crowds as in `overlaps`."""
    begin = np.maximum(first[:, :2], second[:, :2])
    sides = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:]) - begin
    shared = sides[:, 0] * sides[:, 1]
    own = first[:, 2] * first[:, 3]
    whole = np.where(is_crowd, own, own + second[:, 2] * second[:, 3] - shared)
    overlap = (sides > 0).all(axis=1)
    return np.divide(shared, whole, out=np.zeros(len(shared)), where=overlap)


def _outcomes(matches: np.ndarray, gt_ignored: np.ndarray, outside: np.ndarray, is_nameless: np.ndarray) -> np.ndarray:
    outcomes = np.empty(matches.shape, dtype=np.uint8)
    # An entry more, which -1 picks, for detections without an object.
    nameless = np.append(is_nameless, True)
    for own, found, ignored, beyond in zip(outcomes, matches, gt_ignored, outside, strict=True):
        unmatched = nameless[found]
        own[:] = np.where(unmatched, WRONG, RIGHT)
        own[np.append(ignored, False)[found] | (unmatched & beyond)] = IGNORED
    return outcomes


def _tensors(masks: Masks) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(masks.text), torch.from_numpy(masks.offsets)
