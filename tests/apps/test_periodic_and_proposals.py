"""SOLVER.TEST_PERIOD, and the whole way of a network that only proposes."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import make_dataset
from maskrcnn_benchmark.evaluation import evaluate_box_proposals, load_predictions
from maskrcnn_benchmark.evaluation.proposals import AREA_RANGES
from tests.apps.tiny_run import tiny_run

__all__ = ["tiny_run"]  # a fixture


def weights_of(path):
    return torch.load(path, weights_only=True)["model"]


def test_a_period_evaluates_and_changes_nothing_else(tiny_run):
    tiny_run.train("--skip-test")
    expected = weights_of(tiny_run.output / "model_final.pth")
    other = tiny_run.folder / "with_period"
    tiny_run.train(keys={"OUTPUT_DIR": other, "SOLVER.TEST_PERIOD": 2})
    log = (other / "log.txt").read_text()
    assert [f"Starting evaluation after iteration {i}" in log for i in (1, 2, 3, 4)] == [False, True, False, True]
    assert log.count("Start evaluation on tiny dataset") == 2  # the last one is not repeated after training
    weights = weights_of(other / "model_final.pth")
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_after_the_last_period_the_end_is_evaluated_too(tiny_run):
    tiny_run.train(keys={"SOLVER.TEST_PERIOD": 3, "SAVE_CHECKPOINT": False})
    assert (tiny_run.output / "log.txt").read_text().count("Start evaluation on tiny dataset") == 2


def test_a_region_proposal_network_trains_and_is_evaluated(tiny_run):
    keys = {"MODEL.RPN_ONLY": True, "MODEL.MASK_ON": False, "MODEL.RPN.POST_NMS_TOP_N_TEST": 300}
    keys |= {"MODEL.RPN.PRE_NMS_TOP_N_TEST": 300, "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 300}
    tiny_run.train("--skip-test", keys=keys)
    tiny_run.test(keys=keys)
    folder = tiny_run.output / "inference" / "tiny"
    figures = torch.load(folder / "box_proposals.pth", weights_only=True)["box_proposal"]
    assert list(figures) == [f"AR{size}@{limit}" for limit in (100, 1000) for size in ("", "s", "m", "l")]
    assert not (folder / "bbox.json").exists()

    config = global_cfg.clone()
    config.DATASETS.CUSTOM, config.MODEL.RPN_ONLY = tiny_run.data.custom("tiny"), True
    predictions = load_predictions(folder / "predictions.pth")
    assert max(map(len, predictions.values())) > 100
    dataset = make_dataset(config, "tiny", is_train=False)
    for name, area in (("", "all"), ("s", "small"), ("m", "medium")):
        for limit in (100, 1000):
            recall = evaluate_box_proposals(predictions, dataset, area=AREA_RANGES[area], limit=limit)
            assert figures[f"AR{name}@{limit}"] == pytest.approx(recall.average_recall)
    assert 0 <= figures["AR@100"] < figures["AR@1000"] <= 1
