"""When a run has reached its aim."""

from __future__ import annotations

import pytest

from maskrcnn_benchmark.engine.early_exit import EarlyExit, PerEpochEvaluation, PeriodicEvaluation

AIM = EarlyExit(min_bbox_map=0.377, min_segm_map=0.342)


@pytest.mark.parametrize(
    ("bbox", "segm", "reached"),
    [(0.377, 0.342, True), (0.4, 0.4, True), (0.3769, 0.4, False), (0.4, 0.3419, False), (float("nan"), 0.4, False)],
)
def test_both_aims_count(bbox, segm, reached):
    assert AIM.reached({"bbox": {"AP": bbox, "AP50": 0.9}, "segm": {"AP": segm}}) is reached


def test_a_model_without_masks_needs_boxes_only():
    assert AIM.reached({"bbox": {"AP": 0.38}})
    assert not AIM.reached({"bbox": {"AP": 0.37}})


def test_nothing_measured_is_not_reached():
    assert not AIM.reached({})
    assert not AIM.reached({"box_proposal": {"AR@100": 0.9}})


def test_evaluation_after_each_epoch_until_the_aim():
    figures = {10: 0.1, 20: 0.5}
    calls = []

    def evaluate(iteration):
        calls.append(iteration)
        return {"bbox": {"AP": figures[iteration]}}

    callback = PerEpochEvaluation(evaluate, 10, AIM)
    ends = [iteration for iteration in range(1, 21) if callback(iteration=iteration)]
    assert calls == [10, 20]
    assert ends == [20]


def test_periodic_evaluation_reports_and_goes_on():
    calls = []
    callback = PeriodicEvaluation(calls.append, 4)
    assert not any(callback(iteration=iteration) for iteration in range(1, 11))
    assert calls == [4, 8]


def test_an_evaluation_after_an_epoch_is_not_repeated_by_the_period():
    calls = []
    figures = {6: 0.1, 12: 0.5}

    def evaluate(iteration):
        calls.append(iteration)
        return {"bbox": {"AP": figures.get(iteration, 0.9)}}

    callback = PeriodicEvaluation(evaluate, 4, PerEpochEvaluation(evaluate, 6, AIM))
    ends = [iteration for iteration in range(1, 13) if callback(iteration=iteration)]
    assert calls == [4, 6, 8, 12]
    assert ends == [12]  # the aim counts after epochs
