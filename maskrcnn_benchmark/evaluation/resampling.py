"""How sure the figures are, and which images make them: bootstrap over images, and figures of single images.

Matching does not depend on which other images there are, so a resample only weighs the images anew. Letters: B
resamples, I images, T IoU thresholds, D detections of one class.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .matching import IGNORED, RIGHT, WRONG, Matching

_SEED = 0
_LEVEL = 0.95
_RECALLS = np.linspace(0.0, 1.0, 101)
_MOST_WEIGHTS = 20_000_000  # numbers at a time: classes with more detections are taken in more parts of the resamples


def confidence_intervals(matching: Matching, thresholds: np.ndarray, num_resamples: int) -> dict[str, Any] | None:
    """Intervals of AP, AP50 and AP75 that hold 95 in 100 resamples of the images, drawn with replacement.

    Args:
        matching: over objects of all sizes first.
        thresholds: its IoU thresholds.
        num_resamples: B; below 2 there is no interval.

    Returns:
        By figure `low`, `high` and `std`; None without resamples, or images.
    """
    num_images = len(matching.truth.image_ids)
    if num_resamples < 2 or not num_images:
        return None
    random = np.random.RandomState(_SEED)
    weights = np.stack(
        [np.bincount(random.randint(num_images, size=num_images), minlength=num_images) for _ in range(num_resamples)]
    ).astype(np.int32)
    table = resampled_precisions(matching, weights)  # [B, T]
    columns = {"AP": table.mean(axis=1)}
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        columns[name] = table[:, np.abs(np.asarray(thresholds) - threshold).argmin()]
    tail = (1 - _LEVEL) / 2
    figures = {}
    for name, values in columns.items():
        defined = values[~np.isnan(values)]
        low, high = np.quantile(defined, (tail, 1 - tail)) if defined.size else (-1.0, -1.0)
        std = float(defined.std(ddof=1)) if defined.size > 1 else 0.0
        figures[name] = {"low": float(low), "high": float(high), "std": std}
    return {"level": _LEVEL, "num_resamples": num_resamples, "seed": _SEED, "figures": figures}


def resampled_precisions(matching: Matching, weights: np.ndarray) -> np.ndarray:
    """AP by resample and threshold, over the classes that have objects in it, float64 [B, T].

    Args:
        matching: over objects of all sizes first.
        weights: int32 [B, I], how often each image was drawn.
    """
    truth = matching.truth
    num_classes, num_thresholds = len(truth.category_ids), matching.outcomes.shape[1]
    total = np.zeros((len(weights), num_thresholds))
    num_present = np.zeros(len(weights))
    bounds = np.searchsorted(matching.categories, np.arange(num_classes + 1))
    for k in range(num_classes):
        images = truth.images[(truth.categories == k) & ~matching.gt_ignored[0]]
        if not len(images):
            continue
        to_find = weights[:, images].sum(axis=1)
        num_present += to_find > 0
        own = slice(bounds[k], bounds[k + 1])
        order = np.argsort(-matching.scores[own], kind="stable")
        rows = max(1, _MOST_WEIGHTS // max(1, len(order)))
        for first in range(0, len(weights), rows):
            part = slice(first, first + rows)
            drawn = weights[part][:, matching.images[own][order]]
            total[part] += _class_precisions(drawn, matching.outcomes[0][:, own][:, order], to_find[part])
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / num_present[:, None]


def _class_precisions(drawn: np.ndarray, outcomes: np.ndarray, to_find: np.ndarray) -> np.ndarray:
    """AP of one class, float64 [B, T]; 0 where nothing is to be found.

    Args:
        drawn: int32 [B, D], how often the image of each detection was drawn, by descending score.
        outcomes: uint8 [T, D].
        to_find: int64 [B].
    """
    result = np.zeros((len(drawn), len(outcomes)))
    counted = np.cumsum(drawn, axis=1)
    # How many must be right to reach each recall, [B, R]. Some recalls are a last bit larger than they look, so that
    # the quotient decides, as in COCO's evaluation.
    needed = np.ceil(_RECALLS * to_find[:, None] - 1e-9).astype(np.int64)
    needed += needed / np.maximum(to_find, 1)[:, None] < _RECALLS
    needed[to_find == 0] = np.iinfo(np.int32).max
    step = int(to_find.max(initial=0)) + 1
    for t, row in enumerate(outcomes):
        right = np.flatnonzero(row == RIGHT)
        if not len(right):
            continue
        num_right = np.cumsum(drawn[:, right], axis=1)
        num_counted = counted[:, right].astype(np.float64)
        ignored = np.flatnonzero(row == IGNORED)
        if len(ignored):
            before = np.concatenate([np.zeros((len(drawn), 1), np.int64), np.cumsum(drawn[:, ignored], axis=1)], axis=1)
            num_counted -= before[:, np.searchsorted(ignored, right)]
        precision = num_right / np.maximum(num_counted, 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # One search for all resamples: each gets a range of its own.
        shift = np.arange(len(drawn))[:, None] * step
        asked = np.minimum(needed, step - 1) + shift
        places = np.searchsorted((num_right + shift).ravel(), asked.ravel()).reshape(asked.shape)
        places -= np.arange(len(drawn))[:, None] * len(right)
        reached = (places < len(right)) & (needed < step)
        read = np.take_along_axis(best, np.minimum(places, len(right) - 1), axis=1)
        result[:, t] = np.where(reached, read, 0.0).mean(axis=1)
    return result


def image_scores(matching: Matching, *, score_threshold: float, most: int) -> dict[str, Any]:
    """The images that went best and worst.

    The score of an image is the F1 of its sure detections (twice the right ones over detections plus objects), averaged
    over the IoU thresholds. Of equal scores the image with more objects and detections stands further out. Images
    without both have none.

    Args:
        matching: over objects of all sizes first.
        score_threshold: of sure detections.
        most: images of each list.
    """
    truth = matching.truth
    num_images = len(truth.image_ids)
    sure = matching.scores >= score_threshold
    images, outcomes = matching.images[sure], matching.outcomes[0][:, sure]
    to_find = np.bincount(truth.images[~matching.gt_ignored[0]], minlength=num_images)
    right, wrong = (
        np.stack([np.bincount(images[row == kind], minlength=num_images) for row in outcomes])
        for kind in (RIGHT, WRONG)
    )
    size = right + wrong + to_find
    with np.errstate(invalid="ignore"):
        scores = np.where(size > 0, 2 * right / np.maximum(size, 1), np.nan).mean(axis=0)
    scored = np.flatnonzero(~np.isnan(scores))
    descending = scored[np.lexsort((scored, -size[0][scored], -scores[scored]))]
    ascending = scored[np.lexsort((scored, -size[0][scored], scores[scored]))]

    def entries(chosen: np.ndarray) -> list[dict[str, Any]]:
        return [
            {
                "image_id": truth.image_ids[i].item(),
                "score": round(float(scores[i]), 4),
                "num_objects": int(to_find[i]),
                "right": int(right[0, i]),
                "wrong": int(wrong[0, i]),
                "missed": int(to_find[i] - right[0, i]),
            }
            for i in chosen[:most]
        ]

    return {
        "score_threshold": score_threshold,
        "num_scored": len(scored),
        "mean": float(scores[scored].mean()) if len(scored) else -1.0,
        "histogram": np.histogram(scores[scored], bins=10, range=(0.0, 1.0))[0].tolist(),
        "best": entries(descending),
        "worst": entries(ascending),
    }
