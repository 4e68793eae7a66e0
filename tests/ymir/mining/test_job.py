"""The mining phase: its settings, and drawn candidates through a network."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.mining import mine, scoring, validate_mining
from maskrcnn_benchmark.ymir.mining.aldd import aldd_scores
from maskrcnn_benchmark.ymir.mining.settings import ALGORITHMS, MiningSettings
from maskrcnn_benchmark.ymir.settings import JobSettings
from tests.ymir.mining.conftest import RETINANET, make_predictor

CLASSES = ["square", "disc", "ring", "cross"]


def settings_of(**values: object) -> JobSettings:
    return JobSettings({"class_names": CLASSES, **values})


def no_network() -> Predictor:
    raise AssertionError("the network was asked for")


@pytest.fixture(autouse=True)
def small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of 64 pixels in place of 640: a hundredth of the time."""
    monkeypatch.setattr(scoring, "aldd_scores", functools.partial(aldd_scores, map_size=64))


def test_defaults_of_the_template() -> None:
    chosen = MiningSettings.from_settings(settings_of())
    assert chosen == MiningSettings("entropy", 0.2, "paper", (), 2, 2)


def test_values_that_come_as_text() -> None:
    chosen = MiningSettings.from_settings(
        settings_of(
            mining_algorithm=" CALD ",
            conf_threshold="0.35",
            cald_variant="ymir",
            class_distribution_scores="1.0, 0.5,0",
            batch_size_per_gpu="4",
            num_workers_per_gpu="0",
        )
    )
    assert chosen == MiningSettings("cald", 0.35, "ymir", (1.0, 0.5, 0.0), 4, 0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mining_algorithm": "coreset"}, "mining_algorithm 'coreset' is not known; there are random, entropy, aldd"),
        ({"cald_variant": "mine"}, "cald_variant 'mine' is not known; there are paper, ymir"),
        ({"conf_threshold": 1.0}, "conf_threshold must be from 0 to below 1, got 1"),
        ({"conf_threshold": -0.1}, "conf_threshold must be from 0"),
        ({"conf_threshold": "high"}, "conf_threshold must be a number"),
        ({"class_distribution_scores": "1.0,x"}, "class_distribution_scores must be a number, got 'x'"),
        ({"class_distribution_scores": "1,-2"}, "class_distribution_scores must not be negative, got 1, -2"),
        ({"class_distribution_scores": "1,1,1,1,1"}, "class_distribution_scores has 5 .* 4 class"),
        ({"batch_size_per_gpu": 0}, "batch_size_per_gpu must be at least 1"),
    ],
)  # fmt: skip
def test_wrong_settings(values: dict[str, object], said: str) -> None:
    with pytest.raises(JobError, match=said) as caught:
        validate_mining(settings_of(**values))
    assert caught.value.code == ReturnCode.CONFIG == 300001


def test_chance_needs_no_network_and_no_picture() -> None:
    paths, told = [f"/in/assets/{index}.jpg" for index in range(5)], []
    scores = mine(settings_of(mining_algorithm="random"), paths, make_predictor=no_network, progress=told.append)
    assert len(set(scores)) == 5
    assert told == [1.0]
    again = mine(settings_of(mining_algorithm="random"), paths[::-1], make_predictor=no_network, progress=told.append)
    assert again == scores[::-1]


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "random"])
def test_drawn_candidates(algorithm: str, candidates: list[str], demo_predictor: Predictor) -> None:
    """One score a candidate, the same again and in two shares; progress to the end."""
    # An untrained network gives every class about 0.2.
    settings = settings_of(mining_algorithm=algorithm, conf_threshold=0.1, batch_size_per_gpu=1, num_workers_per_gpu=1)
    told: list[float] = []

    def scores_of(paths: list[str]) -> list[float]:
        return mine(settings, paths, make_predictor=lambda: demo_predictor, progress=told.append)

    scores = scores_of(candidates)
    assert told == [pytest.approx(4 / 6), 1.0]
    assert all(isinstance(score, float) and np.isfinite(score) for score in scores)
    assert len(set(scores)) == 6
    shares = [scores_of(candidates[rank::2]) for rank in range(2)]
    assert [shares[index % 2][index // 2] for index in range(6)] == scores


def test_missing_and_broken_pictures(candidates: list[str], demo_predictor: Predictor, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    for path, code in ((tmp_path / "missing.jpg", ReturnCode.DATASET), (broken, ReturnCode.ANNOTATION)):
        with pytest.raises(JobError, match=path.name) as caught:
            mine(settings_of(), [*candidates[:1], str(path)], make_predictor=lambda: demo_predictor, progress=print)
        assert caught.value.code == code


def test_no_candidates(demo_predictor: Predictor) -> None:
    assert mine(settings_of(), [], make_predictor=lambda: demo_predictor, progress=lambda _: None) == []


def test_what_a_network_cannot_give(candidates: list[str], demo_predictor: Predictor) -> None:
    dense = make_predictor(*RETINANET)

    def run(predictor: Predictor, **values: object) -> list[float]:
        return mine(settings_of(**values), candidates[:1], make_predictor=lambda: predictor, progress=lambda _: None)

    with pytest.raises(JobError, match="apis needs masks"):
        run(dense, mining_algorithm="apis")
    with pytest.raises(JobError, match="class_distribution_scores cannot weigh"):
        run(demo_predictor, mining_algorithm="aldd", class_distribution_scores="1,0.5")
    run(demo_predictor, mining_algorithm="aldd", class_distribution_scores="1,1")
    whole, none = (
        run(dense, mining_algorithm="aldd", class_distribution_scores=text)[0] for text in ("1,1,1,1", "0,0,0,0")
    )
    assert whole > none == 0.0
