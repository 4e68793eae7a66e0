"""Pictures to scores, with a detector that only looks at the pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.ymir.mining import scoring
from maskrcnn_benchmark.ymir.mining.aldd import aldd_scores
from maskrcnn_benchmark.ymir.mining.consistency import BETA
from maskrcnn_benchmark.ymir.mining.detections import ImageDetections
from maskrcnn_benchmark.ymir.mining.scoring import score_images
from maskrcnn_benchmark.ymir.mining.settings import ALGORITHMS


@pytest.fixture(autouse=True)
def small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of 64 pixels in place of 640: a hundredth of the time."""
    monkeypatch.setattr(scoring, "aldd_scores", functools.partial(aldd_scores, map_size=64))


class BrightDetector:
    """Finds a box about the bright pixels of a picture, the surer the brighter; nothing in a dark one."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def detect(self, images: Sequence[np.ndarray], *, masks: bool = False) -> list[ImageDetections]:
        self.calls.append(len(images))
        return [self._detect(image, masks) for image in images]

    def confidence_maps(self, images: Sequence[np.ndarray]) -> list[list[Tensor]]:
        maps = [torch.from_numpy(image[::4, ::4, :2].copy()).permute(2, 0, 1)[None].float() for image in images]
        return [[level / 16 - 8, level[..., ::2, ::2] / 16 - 8] for level in maps]

    def _detect(self, image: np.ndarray, masks: bool) -> ImageDetections:
        rows, columns = np.nonzero(image.max(axis=2) > 100)
        if not len(rows):
            return ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 5, 5)))
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        score = float(image.max()) / 256
        mask = np.full((1, 5, 5), score, dtype=np.float32) if masks else None
        return ImageDetections(
            np.array([box], dtype=float), np.array([score]), np.array([[1 - score, score / 2, score / 2]]), mask
        )


def make_candidates() -> tuple[list[str], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    images = []
    for index in range(9):
        image = rng.integers(0, 60, (64 + 8 * (index % 3), 96, 3), dtype=np.uint8)
        if index % 3:
            x, y = rng.integers(0, 40, 2)
            image[y : y + 20, x : x + 30] = rng.integers(110, 250)
        images.append(image)
    return [f"/in/assets/{index}.jpg" for index in range(9)], images


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_order_shards_and_reruns(algorithm: str) -> None:
    paths, images = make_candidates()
    scores = score_images(algorithm, paths, images, BrightDetector())
    assert all(isinstance(score, float) and np.isfinite(score) for score in scores)
    assert scores == score_images(algorithm, paths, images, BrightDetector())
    assert len({round(score, 9) for score in scores}) >= 6
    order = np.random.default_rng(1).permutation(len(paths))
    permuted = score_images(algorithm, [paths[i] for i in order], [images[i] for i in order], BrightDetector())
    assert permuted == [scores[index] for index in order]
    shards = [score_images(algorithm, paths[rank::2], images[rank::2], BrightDetector()) for rank in range(2)]
    merged = [shards[index % 2][index // 2] for index in range(len(paths))]
    assert merged == scores


@pytest.mark.parametrize(("algorithm", "expected"), [("entropy", -10.0), ("apis", -10.0), ("cald", -BETA)])
def test_pictures_without_detections_come_last(algorithm: str, expected: float) -> None:
    paths, images = make_candidates()
    scores = score_images(algorithm, paths, images, BrightDetector())
    assert [score == expected for score in scores] == [index % 3 == 0 for index in range(9)]
    assert min(scores) == expected


@pytest.mark.parametrize("algorithm", ["entropy", "aldd", "apis"])
def test_a_mirrored_picture_scores_the_same(algorithm: str) -> None:
    paths, images = make_candidates()
    # The detector's maps take every fourth column: a width that 8 divides, mirrored by blocks of 8.
    images = [np.repeat(np.repeat(image[::8, ::8], 8, axis=0), 8, axis=1) for image in images]
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    scores = score_images(algorithm, paths, images, BrightDetector())
    assert score_images(algorithm, paths, mirrored, BrightDetector()) == pytest.approx(scores, rel=1e-4)


def test_cald_shows_views_only_where_something_was_found() -> None:
    paths, images = make_candidates()
    detector = BrightDetector()
    score_images("cald", paths, images, detector)
    assert detector.calls == [9, 4 * 6]
    detector = BrightDetector()
    assert score_images("cald", paths[:1], images[:1], detector) == [-BETA]
    assert detector.calls == [1]


def test_cuts_are_keyed_by_the_path() -> None:
    _, images = make_candidates()
    shown: list[np.ndarray] = []

    class Watching(BrightDetector):
        def detect(self, images: Sequence[np.ndarray], *, masks: bool = False) -> list[ImageDetections]:
            shown.extend(images)
            return super().detect(images, masks=masks)

    score_images("cald", ["/in/a.jpg", "/in/b.jpg"], [images[1], images[1]], Watching())
    first, second = shown[2:6], shown[6:10]
    assert [bool((a == b).all()) for a, b in zip(first, second, strict=True)] == [True, False, True, True]


def test_cald_variants_differ() -> None:
    paths, images = make_candidates()
    paper, ymir = (score_images("cald", paths, images, BrightDetector(), cald_variant=v) for v in ("paper", "ymir"))
    assert max(paper) <= 0 <= max(ymir)


def test_weights_reach_aldd() -> None:
    paths, images = make_candidates()
    plain = score_images("aldd", paths, images, BrightDetector())
    half = score_images("aldd", paths, images, BrightDetector(), class_weights=[0.5])
    assert half == pytest.approx([score / 2 for score in plain])
