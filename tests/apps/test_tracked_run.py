"""What tools/train_net.py and tools/test_net.py tell a tracker, and what a bad tracker changes: nothing."""

from __future__ import annotations

import argparse
import json
import logging

import cv2
import pytest

from maskrcnn_benchmark.apps import sinks as sinks_module
from maskrcnn_benchmark.apps import train as train_app
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.engine.signals import Interrupted
from maskrcnn_benchmark.utils import comm
from tests.apps.tiny_run import tiny_run
from tests.tracking.recording import RecordingTracker

__all__ = ["tiny_run"]  # a fixture

TRACKED = {"TRACKING.BACKENDS": "('jsonl', 'mlflow')", "TRACKING.TIMEOUT": 30.0}


@pytest.fixture
def use(monkeypatch):
    """Puts a tracker in the place of MLflow's."""

    def put(tracker):
        monkeypatch.setattr(sinks_module, "make_tracker", lambda name: tracker)
        return tracker

    return put


def steps(tracker, name="loss"):
    return [iteration for values, iteration in tracker.of("metrics") if name in values]


def test_a_run_its_resume_and_its_test(tiny_run, use):
    tracker = use(RecordingTracker())
    tiny_run.train(keys={**TRACKED, "REPORT": True, "SOLVER.TEST_PERIOD": 2, "TRACKING.UPLOAD_MODEL": True})
    assert steps(tracker) == [1, 2, 3, 4]
    assert steps(tracker, "bbox/AP") == [2, 4]
    assert steps(tracker, "train_perf_fps") == [None]
    logged = [json.loads(line) for line in (tiny_run.output / "metrics.jsonl").read_text().splitlines()]
    assert [values["loss"] for values, _ in tracker.of("metrics") if "loss" in values] == [
        line["loss"] for line in logged if "loss" in line
    ]
    (run,) = tracker.runs
    assert (run.project, run.name, run.run_id) == ("maskrcnn_benchmark", "out", None)
    assert run.settings["SOLVER.BASE_LR"] == 0.005
    files = dict(tracker.of("artifact"))
    assert files["config"] == (tiny_run.output / "config.yml").read_bytes()
    assert files["model"] == (tiny_run.output / "model_final.pth").read_bytes()
    assert set(files) == {"config", "manifest", "report", "model", "evaluation/tiny"}
    ((name, path, iteration),) = tracker.of("figure")
    assert (name, iteration) == ("predictions/tiny", 4)
    assert min(cv2.imread(path).shape[:2]) > 100
    assert tracker.of("finish") == [("finished",)]

    again = use(RecordingTracker())
    tiny_run.train("--skip-test", keys={**TRACKED, "SOLVER.MAX_ITER": 5})
    assert (again.of("start"), steps(again)) == ([("run-1",)], [5])
    tested = use(RecordingTracker())
    tiny_run.test(keys={**TRACKED, "MODEL.WEIGHT": None})
    assert tested.of("start") == [("run-1",)]
    assert steps(tested, "bbox/AP") == [5]


def test_how_a_run_ended(tiny_run, use, monkeypatch):
    def end_with(error):
        tracker = use(RecordingTracker())
        build_and_train = train_app.build_and_train

        def broken(*args, **options):
            build_and_train(*args, **options)
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(train_app, "build_and_train", broken)
            with pytest.raises((type(error), SystemExit)):
                tiny_run.train("--skip-test", keys={**TRACKED, "OUTPUT_DIR": tiny_run.folder / type(error).__name__})
        return tracker.of("finish")

    assert end_with(RuntimeError("broken")) == [("failed",)]
    assert end_with(Interrupted("SIGTERM")) == [("interrupted",)]


@pytest.mark.parametrize("what", [{"fails": {"start"}}, {"fails": {"metrics", "finish"}}, {"hangs": {"metrics"}}])
def test_a_bad_tracker_changes_no_bit(tiny_run, use, what):
    tiny_run.train("--skip-test")
    tracker = use(RecordingTracker(**what))
    output = tiny_run.folder / "tracked"
    warnings = []
    logger = logging.getLogger("maskrcnn_benchmark.trainer")
    handler = logging.Handler(logging.WARNING)
    handler.emit = warnings.append
    logger.addHandler(handler)
    try:
        tiny_run.train("--skip-test", keys={**TRACKED, "TRACKING.TIMEOUT": 0.1, "OUTPUT_DIR": output})
    finally:
        logger.removeHandler(handler)
        tracker.release.set()
    assert tracker.calls
    assert len(warnings) == 1
    assert (output / "trace.jsonl").read_bytes() == (tiny_run.output / "trace.jsonl").read_bytes()


def test_only_the_first_process_writes(tmp_path, use, monkeypatch):
    config = cfg.clone()
    config.merge_from_list(["TRACKING.BACKENDS", "('dllogger', 'jsonl', 'tensorboard', 'mlflow')"])
    args = argparse.Namespace(json_summary=str(tmp_path / "dllogger.out"))
    use(RecordingTracker())
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert sinks_module.make_sinks(config, args, str(tmp_path)).sinks == ()
    monkeypatch.setattr(comm, "is_main_process", lambda: True)
    assert len(sinks_module.make_sinks(config, args, str(tmp_path)).sinks) == 4


def test_the_default_is_what_was_written_before(tmp_path):
    args = argparse.Namespace(json_summary=str(tmp_path / "dllogger.out"))
    group = sinks_module.make_sinks(cfg, args, str(tmp_path))
    names = [type(sink).__name__ for sink in group.sinks]
    group.close()
    assert [name for name in names if name != "TensorBoardSink"] == ["DLLoggerSink", "JsonLinesSink"]


def test_a_tracker_needs_no_output_folder(tiny_run, use):
    tracker = use(RecordingTracker())
    tiny_run.train("--skip-test", keys={**TRACKED, "OUTPUT_DIR": "", "SOLVER.MAX_ITER": 2})
    assert steps(tracker) == [1, 2]
    assert tracker.of("artifact") == []
