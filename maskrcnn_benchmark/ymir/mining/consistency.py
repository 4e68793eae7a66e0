"""CALD: mine pictures whose detections change when the picture is changed a little.

Source: Yu et al., Consistency-based Active Learning for Object Detection (2022), section 3.2, and its authors' program;
the second form is that of YMIR's executors.

Letters: R reference detections, Q detections in a changed picture, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn_benchmark.ymir.mining.detections import ImageDetections, two_point
from maskrcnn_benchmark.ymir.mining.views import View

BETA = 1.3
"""The consistency of a detection at which it teaches most: neither sure (2) nor hopeless (0)."""
VARIANTS = ("paper", "ymir")


def cald_score(
    reference: ImageDetections, views: Sequence[tuple[View, ImageDetections]], *, variant: str = "paper"
) -> float:
    """One number a picture, higher means mine first; -beta for a picture in which nothing is found.

    paper: the mean over the views of the smallest distance |c - beta| of a detection's consistency c to beta. The
    paper mines the smallest first, so its sign is turned: the score lies between -beta and 0. A view in which nothing
    is found is as inconsistent as can be and counts 0, as in the authors' program.

    ymir: the mean over the views of a sum over the boxes, in which each adds the smallest distance up to then, the
    first at most 2. It is not turned, so it grows with the number of objects and with their distance to beta.
    A view in which nothing is found adds beta.

    Args:
        reference: detections in the picture as it is.
        views: changed pictures, each with where the reference boxes now are, and the detections found there.
        variant: one of `VARIANTS`.
    """
    if len(reference) == 0:
        return -BETA
    measure = _smallest_distance if variant == "paper" else _sum_of_smallest
    return float(np.mean([measure(reference, view.boxes, found) for view, found in views]))


def _smallest_distance(reference: ImageDetections, boxes: np.ndarray, found: ImageDetections) -> float:
    if len(found) == 0:
        return 0.0
    ious, match = best_matches(boxes, found)
    agreement = class_agreement(
        reference.scores, found.scores[match], reference.distributions, found.distributions[match]
    )
    return -float(np.abs(ious + agreement - BETA).min())


def _sum_of_smallest(reference: ImageDetections, boxes: np.ndarray, found: ImageDetections) -> float:
    if len(found) == 0:
        return BETA
    ious, match = best_matches(boxes, found)
    scores, other = reference.scores, found.scores[match]
    agreement = class_agreement(scores, other, two_point(scores), two_point(other))
    distances = np.where(ious > 0, np.abs(ious + agreement - BETA), BETA)
    # Best first: the sum depends on the order, and this is the one in which detectors give their boxes.
    order = np.lexsort((distances, -scores))
    return float(np.minimum(np.minimum.accumulate(distances[order]), 2.0).sum())


def class_agreement(
    scores: np.ndarray, other: np.ndarray, distributions: np.ndarray, other_distributions: np.ndarray
) -> np.ndarray:
    """c_cls = (s + s') / 2 (1 - JS), float64 [R], of scores [R] and distributions [R, K] in two pictures."""
    return 0.5 * (scores + other) * (1.0 - jensen_shannon(distributions, other_distributions))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Divergence of the distributions in the rows of p and q [R, K]: float64 [R] in nats, 0 to log 2.

    Rows are scaled to a sum of 1 first.
    """
    p, q = (rows / rows.sum(axis=1, keepdims=True) for rows in (p, q))
    middle = (p + q) / 2
    return np.maximum(0.5 * (_relative_entropy(p, middle) + _relative_entropy(q, middle)), 0.0)


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return (p * np.log(ratio)).sum(axis=1)


def best_matches(boxes: np.ndarray, found: ImageDetections) -> tuple[np.ndarray, np.ndarray]:
    """IoU of each box [R, 4] with the detection that overlaps it most, and which one that is; the surest of equals."""
    ious = box_ious(boxes, found.boxes)
    best = ious.max(axis=1)
    match = np.where(ious == best[:, None], found.scores, -1.0).argmax(axis=1)
    return best, match


def box_ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of all pairs [R, Q] of boxes given by their edges; 0 for boxes without area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
