"""Chance, entropy of scores, entropy of masks: hand-made cases and plain versions of the formulas."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from maskrcnn_benchmark.ymir.mining.entropy import entropy_score, mask_entropy_score
from maskrcnn_benchmark.ymir.mining.random_order import path_key, random_score

PINNED_KEY = 13752554026208472043


def plain_entropy(scores: list[float]) -> float:
    """The formula, one detection after the other."""
    total = 0.0
    for p in scores:
        if p > 0:
            total -= p * math.log2(p)
    return total if scores else -10.0


def plain_mean_map(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], side: int) -> np.ndarray:
    """Each cell's centre looked up in each mask, between the four mask pixels about it."""
    mean = np.zeros((side, side))
    resolution = masks.shape[1]
    for (row, column), (mask, box) in product(product(range(side), repeat=2), zip(masks, boxes, strict=True)):
        x, y = (column + 0.5) / side * size[1], (row + 0.5) / side * size[0]
        x1, y1, x2, y2 = box
        if not (x1 <= x <= x2 and y1 <= y <= y2):
            continue
        u, v = (x - x1) / (x2 - x1) * resolution - 0.5, (y - y1) / (y2 - y1) * resolution - 0.5
        left, top = math.floor(u), math.floor(v)
        for i, j in product((0, 1), repeat=2):
            weight = (1 - abs(u - left - i)) * (1 - abs(v - top - j))
            inside = np.clip((top + j, left + i), 0, resolution - 1)
            mean[row, column] += weight * mask[tuple(inside)] / len(masks)
    return mean


def plain_mask_entropy(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], side: int) -> float:
    total = 0.0
    for m in plain_mean_map(masks, boxes, size, side).flat:
        total -= sum(p * math.log2(p) for p in (m, 1 - m) if p > 0)
    return total


def random_boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    low, high = rng.uniform(-0.1, 0.6, (count, 2)), rng.uniform(0.2, 0.5, (count, 2))
    return np.concatenate([low, low + high], axis=1) * (size[1], size[0], size[1], size[0])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([], -10.0), ([0.5], 0.5), ([1.0], 0.0), ([0.0], 0.0), ([0.25, 0.5, 1.0], 1.0)],
)
def test_entropy_by_hand(scores: list[float], expected: float) -> None:
    assert entropy_score(np.array(scores)) == pytest.approx(expected, abs=1e-12)


def test_entropy_is_the_formula_in_any_order() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 100):
        scores = rng.random(count)
        assert entropy_score(scores) == pytest.approx(plain_entropy(scores.tolist()), rel=1e-12)
        assert entropy_score(scores) == entropy_score(rng.permutation(scores))


def test_a_doubtful_detection_counts_more_than_a_sure_one() -> None:
    assert entropy_score(np.array([0.4])) > entropy_score(np.array([0.95])) > entropy_score(np.array([]))


def test_mask_entropy_is_the_formula() -> None:
    rng = np.random.default_rng(1)
    size, side = (90, 130), 24
    for count in (1, 4):
        masks, boxes = rng.random((count, 7, 7)).astype(np.float32), random_boxes(rng, count, size)
        score = mask_entropy_score(masks, boxes, image_size=size, map_size=side)
        assert score == pytest.approx(plain_mask_entropy(masks, boxes, size, side), rel=1e-6)


def test_mask_entropy_by_hand() -> None:
    whole = np.array([[0.0, 0.0, 40.0, 20.0]])
    # 1 bit for each of 8 x 8 cells where half of the pixels is expected; nothing where the mask is sure.
    assert mask_entropy_score(np.full((1, 5, 5), 0.5), whole, image_size=(20, 40), map_size=8) == pytest.approx(64)
    assert mask_entropy_score(np.ones((1, 5, 5)), whole, image_size=(20, 40), map_size=8) == pytest.approx(0)
    # Two sure masks side by side: each place has a mean of one half.
    halves = np.array([[0.0, 0.0, 20.0, 20.0], [20.0, 0.0, 40.0, 20.0]])
    assert mask_entropy_score(np.ones((2, 5, 5)), halves, image_size=(20, 40), map_size=8) == pytest.approx(64)
    assert mask_entropy_score(np.ones((0, 5, 5)), np.zeros((0, 4)), image_size=(20, 40), map_size=8) == -10


def test_mask_entropy_of_mirrored_larger_and_reordered_pictures() -> None:
    rng = np.random.default_rng(2)
    size = (64, 96)
    masks, boxes = rng.random((3, 6, 6)), random_boxes(rng, 3, size)
    score = mask_entropy_score(masks, boxes, image_size=size, map_size=32)
    mirrored = np.stack([96 - boxes[:, 2], boxes[:, 1], 96 - boxes[:, 0], boxes[:, 3]], axis=1)
    others = {
        "mirrored": (masks[:, :, ::-1].copy(), mirrored, size),
        "larger": (masks, boxes * 3, (64 * 3, 96 * 3)),
        "reordered": (masks[[2, 0, 1]], boxes[[2, 0, 1]], size),
    }
    for name, (other_masks, other_boxes, other_size) in others.items():
        other = mask_entropy_score(other_masks, other_boxes, image_size=other_size, map_size=32)
        assert other == pytest.approx(score, rel=1e-9), name


def test_a_box_outside_or_without_area_adds_nothing() -> None:
    masks = np.ones((2, 4, 4))
    boxes = np.array([[0.0, 0.0, 8.0, 8.0], [100.0, 100.0, 120.0, 120.0]])
    assert mask_entropy_score(masks, boxes, image_size=(8, 8), map_size=4) == pytest.approx(16)
    flat = np.array([[0.0, 0.0, 8.0, 8.0], [3.0, 3.0, 3.0, 3.0]])
    assert np.isfinite(mask_entropy_score(masks, flat, image_size=(8, 8), map_size=4))


def test_chance_is_a_function_of_the_path() -> None:
    paths = [f"/in/assets/{index:02x}/{index}.jpg" for index in range(2000)]
    scores = [random_score(path) for path in paths]
    assert scores == [random_score(path) for path in paths]
    assert len(set(scores)) == len(scores)
    assert all(0 <= score < 1 for score in scores)
    # Uniform: a tenth of them in each tenth, and no order that follows the paths.
    counts = np.histogram(scores, bins=10, range=(0, 1))[0]
    assert (np.abs(counts - 200) < 5 * math.sqrt(200)).all()
    assert abs(np.corrcoef(scores, range(2000))[0, 1]) < 0.1


def test_chance_is_the_same_on_every_machine() -> None:
    # Written down once: Python's own hash would differ from process to process.
    assert path_key("/in/assets/a7/5ca7.jpg") == PINNED_KEY
    assert random_score("/in/assets/a7/5ca7.jpg") == (PINNED_KEY >> 11) / 2**53
