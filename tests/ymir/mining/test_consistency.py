"""CALD against loops, cases by hand, and what the paper says of its measure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from maskrcnn_benchmark.ymir.mining.consistency import BETA, box_ious, cald_score, jensen_shannon
from maskrcnn_benchmark.ymir.mining.detections import ImageDetections, two_point
from maskrcnn_benchmark.ymir.mining.views import View

PICTURE = np.zeros((1, 1, 3), dtype=np.uint8)
NOTHING = ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4)))


def some(rng: np.random.Generator, count: int) -> ImageDetections:
    low = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 50, (count, 2))], axis=1)
    distributions = rng.dirichlet(np.ones(4), count)
    return ImageDetections(boxes, distributions[:, 1:].max(axis=1), distributions)


def one(box: list[float], score: float, distribution: list[float] | None = None) -> ImageDetections:
    distributions = two_point(np.array([score])) if distribution is None else np.array([distribution])
    return ImageDetections(np.array([box], dtype=float), np.array([score]), distributions)


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def plain_divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon in nats, of weights that need not add up to 1."""
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    terms = [a * math.log(a / m) for row in (p, q) for a, m in zip(row, middle, strict=True) if a > 0]
    return 0.5 * sum(terms)


def plain_cald(reference: ImageDetections, views: list[tuple[np.ndarray, ImageDetections]], variant: str) -> float:
    """One box after the other, as the contract words it."""
    if not len(reference):
        return -1.3
    total = 0.0
    for boxes, found in views:
        if not len(found):
            total += 0.0 if variant == "paper" else 1.3
            continue
        smallest, added = 2.0, 0.0
        for box, score, p in zip(boxes, reference.scores, reference.distributions, strict=True):
            ious = [plain_iou(box, other) for other in found.boxes]
            best = max(range(len(ious)), key=lambda index: (ious[index], found.scores[index]))
            q, other = found.distributions[best], found.scores[best]
            if variant == "ymir":
                p, q = np.array([score, 1 - score]), np.array([other, 1 - other])
            js = plain_divergence(p, q)
            consistency = ious[best] + 0.5 * (score + other) * (1 - js)
            if variant == "ymir" and ious[best] == 0:
                smallest = min(smallest, 1.3)
            else:
                smallest = min(smallest, abs(consistency - 1.3))
            added += smallest
        total += -smallest if variant == "paper" else added
    return total / len(views)


def views_of(
    reference: ImageDetections, rng: np.random.Generator, counts: list[int]
) -> list[tuple[View, ImageDetections]]:
    shifts = [rng.uniform(-5, 5, reference.boxes.shape) for _ in counts]
    pairs = zip(shifts, counts, strict=True)
    return [(View(PICTURE, reference.boxes + shift), some(rng, count)) for shift, count in pairs]


def best_first(detections: ImageDetections) -> ImageDetections:
    order = np.argsort(-detections.scores)
    return ImageDetections(*(column[order] for column in detections[:3]))


@pytest.mark.parametrize("variant", ["paper", "ymir"])
def test_score_is_the_formula(variant: str) -> None:
    rng = np.random.default_rng(0)
    for count, counts in ((1, [1, 1, 1, 1]), (5, [4, 0, 7, 2]), (30, [25, 30, 40, 1])):
        reference = best_first(some(rng, count))
        views = views_of(reference, rng, counts)
        expected = plain_cald(reference, [(view.boxes, found) for view, found in views], variant)
        assert cald_score(reference, views, variant=variant) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("variant", ["paper", "ymir"])
def test_the_order_of_boxes_does_not_matter(variant: str) -> None:
    rng = np.random.default_rng(1)
    reference = some(rng, 6)
    views = views_of(reference, rng, [5, 6, 3, 8])
    order = rng.permutation(6)
    other = [
        (View(PICTURE, view.boxes[order]), ImageDetections(*(column[::-1] for column in found[:3])))
        for view, found in views
    ]
    turned = ImageDetections(*(column[order] for column in reference[:3]))
    assert cald_score(turned, other, variant=variant) == pytest.approx(cald_score(reference, views, variant=variant))


def test_by_hand() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    same = [(View(PICTURE, np.array([box])), one(box, 1.0))] * 4
    # Found again in the same place and as sure: c = 1 + 1 = 2.
    assert cald_score(one(box, 1.0), same) == pytest.approx(-0.7)
    assert cald_score(one(box, 1.0), same, variant="ymir") == pytest.approx(0.7)
    # Half of the box, half as sure: IoU 0.5; JS of (0, 1) and (0.5, 0.5) is 0.2158 nats; c = 0.5 + 0.75 * 0.7842.
    half = [(View(PICTURE, np.array([box])), one([0.0, 0.0, 5.0, 10.0], 0.5))] * 4
    js = 0.5 * math.log(1 / 0.75) + 0.5 * (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert cald_score(one(box, 1.0), half) == pytest.approx(-abs(0.5 + 0.75 * (1 - js) - 1.3))
    # Found nowhere near: c = 0 + 1, and beta itself in YMIR's form.
    away = [(View(PICTURE, np.array([box])), one([50.0, 50.0, 60.0, 60.0], 1.0))] * 4
    assert cald_score(one(box, 1.0), away) == pytest.approx(-0.3)
    assert cald_score(one(box, 1.0), away, variant="ymir") == pytest.approx(1.3)


def test_nothing_found() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    lost = [(View(PICTURE, np.array([box])), NOTHING)] * 4
    assert cald_score(NOTHING, []) == cald_score(NOTHING, [], variant="ymir") == -BETA
    assert cald_score(one(box, 0.9), lost) == 0.0
    assert cald_score(one(box, 0.9), lost, variant="ymir") == BETA


def test_what_the_paper_wants_is_mined_first() -> None:
    """Neither the consistent nor the hopeless detection teaches most, but the one about beta."""
    box, view = [0.0, 0.0, 10.0, 10.0], View(PICTURE, np.array([[0.0, 0.0, 10.0, 10.0]]))

    def score(width: float, sureness: float) -> float:
        return cald_score(one(box, sureness), [(view, one([0.0, 0.0, width, 10.0], sureness))] * 4)

    stable, unstable, hopeless = score(10.0, 0.99), score(7.0, 0.6), score(1.0, 0.2)
    assert unstable == pytest.approx(0.0)
    assert unstable > stable
    assert unstable > hopeless
    # One such detection decides, whatever else the picture shows.
    sure = one([50.0, 50.0, 60.0, 60.0], 0.99)
    both = ImageDetections(*(np.concatenate(pair) for pair in zip(one(box, 0.6)[:3], sure[:3], strict=True)))
    found = ImageDetections(
        *(np.concatenate(pair) for pair in zip(one([0.0, 0.0, 7.0, 10.0], 0.6)[:3], sure[:3], strict=True))
    )
    assert cald_score(both, [(View(PICTURE, both.boxes), found)] * 4) == pytest.approx(unstable)


def test_another_class_is_inconsistent() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    view = View(PICTURE, np.array([box]))
    reference = one(box, 0.9, [0.05, 0.9, 0.05])
    same = cald_score(reference, [(view, one(box, 0.9, [0.05, 0.9, 0.05]))])
    other = cald_score(reference, [(view, one(box, 0.9, [0.05, 0.05, 0.9]))])
    assert other > same


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_equal_overlaps_the_surest_counts(order: list[int]) -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    pair = ImageDetections(np.array([box, box]), np.array([0.9, 0.3])[order], two_point(np.array([0.9, 0.3]))[order])
    assert cald_score(one(box, 0.9), [(View(PICTURE, np.array([box])), pair)]) == pytest.approx(-(1.9 - 1.3))


def test_jensen_shannon() -> None:
    rng = np.random.default_rng(2)
    p, q = rng.random((9, 5)), rng.random((9, 5))
    p[0, 2] = q[0, 2] = p[1, 3] = 0
    expected = [plain_divergence(a, b) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(jensen_shannon(p, q), expected, rtol=1e-9)
    np.testing.assert_allclose(jensen_shannon(p, p), 0, atol=1e-12)
    apart = jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert apart == pytest.approx([math.log(2)])


def test_ious() -> None:
    rng = np.random.default_rng(3)
    first, second = some(rng, 6).boxes, some(rng, 9).boxes
    second[0] = (5, 5, 5, 5)
    expected = [[plain_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(box_ious(first, second), expected, rtol=1e-12)
