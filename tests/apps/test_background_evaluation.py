"""Training goes on while the figures of SOLVER.TEST_PERIOD are computed, and nothing of it is lost."""

from __future__ import annotations

import json
import threading

import pytest

from maskrcnn_benchmark.engine import inference
from maskrcnn_benchmark.engine.early_exit import PeriodicEvaluation
from tests.apps.tiny_run import tiny_run

__all__ = ["tiny_run"]  # a fixture
KEYS = {"SOLVER.TEST_PERIOD": 2, "SAVE_CHECKPOINT": False, "TEST.BOOTSTRAP": 0}


def test_training_goes_on_meanwhile(tiny_run, monkeypatch):
    went_on, threads = threading.Event(), []
    evaluate, call = inference.evaluate, PeriodicEvaluation.__call__

    def evaluate_late(*args, **options):
        if not threads:
            assert went_on.wait(120), "the third iteration did not come while the figures of the second were pending"
        threads.append(threading.current_thread())
        return evaluate(*args, **options)

    def call_and_tell(self, iteration):
        if iteration == 3:
            went_on.set()
        return call(self, iteration)

    monkeypatch.setattr(inference, "evaluate", evaluate_late)
    monkeypatch.setattr(PeriodicEvaluation, "__call__", call_and_tell)
    tiny_run.train(keys=KEYS)
    # The last evaluation is waited for.
    assert [thread is threading.main_thread() for thread in threads] == [False, True]
    rows = [json.loads(line) for line in (tiny_run.output / "evaluations.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [2, 4]
    assert (tiny_run.output / "log.txt").read_text().count("bbox mAP") == 2


def test_an_error_ends_the_run(tiny_run, monkeypatch, capsys):
    def fail(*args, **options):
        raise ValueError("the figures cannot be computed")

    monkeypatch.setattr(inference, "evaluate", fail)
    with pytest.raises((ValueError, SystemExit)):
        tiny_run.train("--skip-test", keys=KEYS)
    assert "the figures cannot be computed" in capsys.readouterr().err + (tiny_run.output / "log.txt").read_text()
