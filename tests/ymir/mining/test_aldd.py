"""ALDD against loops written from its formulas, and cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.ymir.mining.aldd import aldd_scores, binary_entropy, uncertainty_map, weighted_sum, window_mean


def entropy(p: float) -> float:
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def plain_window_mean(values: np.ndarray, window: int) -> np.ndarray:
    half, means = window // 2, np.zeros_like(values)
    for row, column in np.ndindex(*values.shape):
        part = values[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
        means[row, column] = part.mean()
    return means


def plain_enlarged(values: np.ndarray, side: int) -> np.ndarray:
    """Bilinear, pixel centres at the same share of the picture."""
    result = np.zeros((side, side))
    for row, column in np.ndindex(side, side):
        v, u = ((at + 0.5) * length / side - 0.5 for at, length in zip((row, column), values.shape, strict=True))
        v, u = (min(max(at, 0), length - 1) for at, length in zip((v, u), values.shape, strict=True))
        top, left = int(v), int(u)
        below, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
        dv, du = v - top, u - left
        result[row, column] = (
            values[top, left] * (1 - dv) * (1 - du)
            + values[top, right] * (1 - dv) * du
            + values[below, left] * dv * (1 - du)
            + values[below, right] * dv * du
        )
    return result


def plain_score(levels: list[np.ndarray], side: int) -> float:
    """Channels [h, w] of all levels -> U summed over channels, its maximum in each 32 x 32 region, their mean."""
    uncertainty = np.zeros((side, side))
    entropies = np.vectorize(entropy)
    for logits in levels:
        p = 1 / (1 + np.exp(-plain_enlarged(logits, side)))
        uncertainty += entropies(plain_window_mean(p, 9)) - plain_window_mean(entropies(p), 9)
    regions = [uncertainty[r : r + 32, c : c + 32].max() for r in range(0, side, 32) for c in range(0, side, 32)]
    return float(np.mean(regions))


def random_levels(seed: int, classes: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(classes, 2, *size, generator=generator) for size in ((16, 12), (8, 6), (3, 2))]


def test_score_is_the_formula() -> None:
    levels = random_levels(0, classes=2)
    for score, of_class in zip(aldd_scores(levels, map_size=64), range(2), strict=True):
        channels = [channel.double().numpy() for level in levels for channel in level[of_class]]
        assert score == pytest.approx(plain_score(channels, 64), rel=1e-4)


@pytest.mark.parametrize("window", [1, 3, 5, 7, 9])
def test_window_mean_is_a_mean(window: int) -> None:
    maps = torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(window))
    for found, values in zip(window_mean(maps, window), maps, strict=True):
        np.testing.assert_allclose(found, plain_window_mean(values.double().numpy(), window), atol=1e-6)


def test_places_that_agree_have_no_uncertainty() -> None:
    for p in (0.0, 0.3, 1.0):
        assert uncertainty_map(torch.full((3, 40, 40), p)).abs().max() < 1e-5


def test_a_sharp_edge_by_hand() -> None:
    step = torch.zeros(1, 64, 64)
    step[:, :, 32:] = 1
    found = uncertainty_map(step)[20]
    # Sure on both sides, so only the entropy of the mean is left: of k ones among nine columns.
    expected = [entropy(min(max(column - 27, 0), 9) / 9) for column in range(64)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    logits = [torch.where(step > 0, 40.0, -40.0)[None]]
    assert aldd_scores(logits, map_size=64) == pytest.approx([entropy(4 / 9)], abs=1e-6)


def test_uncertainty_is_never_negative() -> None:
    # Entropy is concave: that of a mean is at least the mean of them.
    maps = torch.rand(4, 50, 50, generator=torch.Generator().manual_seed(3))
    assert uncertainty_map(maps).min() > -1e-5


def test_a_mirrored_picture_scores_the_same() -> None:
    levels = random_levels(1)
    mirrored = aldd_scores([level.flip(3) for level in levels], map_size=96)
    assert mirrored == pytest.approx(aldd_scores(levels, map_size=96), rel=1e-4)


def test_the_order_of_anchors_does_not_matter() -> None:
    levels = random_levels(2)
    turned = aldd_scores([level.flip(1) for level in levels], map_size=64)
    assert turned == pytest.approx(aldd_scores(levels, map_size=64), rel=1e-5)
    assert aldd_scores(levels, map_size=64) == aldd_scores(levels, map_size=64)


def test_entropy_of_the_certain() -> None:
    p = torch.tensor([0.0, 1.0, 0.5, -1e-7, 1.0 + 1e-7])
    torch.testing.assert_close(binary_entropy(p), torch.tensor([0.0, 0.0, math.log(2), 0.0, 0.0]), atol=1e-6, rtol=0)


def test_weights_of_classes() -> None:
    assert weighted_sum([1.0, 2.0, 4.0], [0.5, 0.0]) == 0.5 + 0.0 + 4.0
    assert weighted_sum([1.0, 2.0], []) == 3.0
