"""What reaches a tracker, and that nothing it does reaches the training."""

from __future__ import annotations

import json
import logging
import threading
import time

import pytest

from maskrcnn_benchmark.config import cfg, validate
from maskrcnn_benchmark.config.validate import BACKENDS
from maskrcnn_benchmark.tracking import SinkGroup
from maskrcnn_benchmark.tracking import tracker_sink as tracker_sink_module
from maskrcnn_benchmark.tracking.backends import TRACKERS, make_tracker
from maskrcnn_benchmark.tracking.tracker import RunIds, TrackedRun
from maskrcnn_benchmark.tracking.tracker_sink import TrackerSink
from tests.tracking.recording import RecordingTracker

FIGURES = {"bbox": {"AP": 0.25, "AP50": 0.5}}


@pytest.fixture
def warnings(monkeypatch):
    """What the log says at warning level."""
    found = []
    logger = logging.getLogger("maskrcnn_benchmark.trainer")
    monkeypatch.setattr(logger, "warning", lambda message, *args: found.append(message % args))
    return found


def make_sink(tracker, folder="", *, timeout=30.0, **options):
    run = TrackedRun("project", "experiment", "name", settings={"SEED": 1}, folder=str(folder), timeout=timeout)
    return TrackerSink(tracker, run, **options)


def test_everything_arrives_in_order_and_in_another_thread(tmp_path, warnings):
    tracker = RecordingTracker()
    group = SinkGroup([make_sink(tracker, tmp_path)])
    group.metadata("loss", {"unit": None})
    group.log("PARAMETER", {"gpu_count": 2})
    group.rewind(0)
    assert tracker.calls == []  # it begins with the first figures
    group.log((20, 1), {"loss": 0.5, "eta": "0:01:00", "iterations": 3}, text={"loss": "0.5 (0.6)"})
    group.evaluation(FIGURES, iteration=30)
    group.log((40,), {"loss": 0.25})
    group.evaluation(FIGURES)
    group.log((), {"train_perf_fps": 2.5})
    picture, text = tmp_path / "sheet.jpg", tmp_path / "config.yml"
    picture.write_bytes(b"jpeg")
    text.write_text("SEED: 1\n")
    group.figure("predictions/tiny", str(picture))
    group.artifact("config", str(text))
    group.finish("finished")
    assert tracker.calls == [
        ("start", None),
        ("metrics", {"loss": 0.5, "iterations": 3.0, "epoch": 1.0}, 20),
        ("metrics", {"bbox/AP": 0.25, "bbox/AP50": 0.5}, 30),
        ("metrics", {"loss": 0.25}, 40),
        ("metrics", {"bbox/AP": 0.25, "bbox/AP50": 0.5}, 40),
        ("metrics", {"train_perf_fps": 2.5}, None),
        ("figure", "predictions/tiny", str(picture), 40),
        ("artifact", "config", b"SEED: 1\n"),
        ("finish", "finished"),
    ]
    assert tracker.threads == {"tracker recording"}
    assert tracker.runs[0].settings == {"SEED": 1, "gpu_count": 2}
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"recording": "run-1"}
    assert warnings == []


@pytest.mark.parametrize("status", ["finished", "interrupted", "failed"])
def test_the_end_is_told_once(status):
    tracker = RecordingTracker()
    sink = make_sink(tracker)
    sink.log((1,), {"loss": 1.0})
    sink.finish(status)
    sink.close()
    sink.log((2,), {"loss": 1.0})
    assert tracker.calls[-1] == ("finish", status)
    assert len(tracker.calls) == 3


def test_a_run_without_figures_begins_no_run():
    tracker = RecordingTracker()
    sink = make_sink(tracker)
    sink.log("PARAMETER", {"gpu_count": 1})
    sink.finish("failed")
    assert tracker.calls == []


def run_once(folder, iteration, **options):
    tracker = RecordingTracker(**options)
    sink = make_sink(tracker, folder)
    if iteration is not None:
        sink.rewind(iteration)
    sink.log((100,), {"loss": 1.0})
    sink.finish("finished")
    return tracker.of("start")[0][0]


def test_a_resumed_run_goes_on_with_its_tracker_run(tmp_path):
    RunIds(str(tmp_path)).keep("another", "x")
    assert run_once(tmp_path, 0) is None
    assert run_once(tmp_path, 50) == "run-1"
    assert run_once(tmp_path, None) == "run-1"  # an evaluation of the run
    assert run_once(tmp_path, 0) is None  # begun anew in the same folder
    assert RunIds(str(tmp_path)).find("another") == "x"


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"recording": 3}', "\xff"])
def test_a_damaged_id_file_begins_a_new_run(tmp_path, damage):
    (tmp_path / "trackers.json").write_text(damage, encoding="latin-1")
    assert run_once(tmp_path, 50) is None
    assert run_once(tmp_path, 50) == "run-1"


def test_a_tracker_that_cannot_begin_is_left_alone(tmp_path, warnings):
    tracker = RecordingTracker(fails={"start"})
    sink = make_sink(tracker, tmp_path)
    sink.log((1,), {"loss": 1.0})
    sink.thread.join()
    for iteration in range(2, 50):
        sink.log((iteration,), {"loss": 1.0})
    sink.finish("finished")
    assert tracker.calls == [("start", None)]
    assert warnings == ["The tracker recording cannot begin a run (the server said no); training does not depend on it"]
    assert not (tmp_path / "trackers.json").exists()


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError(28, "No space left"), SystemExit(1), KeyError()])
def test_a_tracker_that_fails_on_the_way_is_tried_again(warnings, error):
    tracker = RecordingTracker(fails={"metrics"}, error=error)
    sink = make_sink(tracker)
    for iteration in range(1, 4):
        sink.log((iteration,), {"loss": 1.0})
    while len(tracker.of("metrics")) < 3:
        time.sleep(0.01)
    tracker.fails.clear()
    sink.log((4,), {"loss": 1.0})
    sink.finish("finished")
    assert [iteration for _, iteration in tracker.of("metrics")] == [1, 2, 3, 4]
    assert tracker.calls[-1] == ("finish", "finished")
    assert len(warnings) == 1


def test_a_failure_at_the_end_is_a_warning(warnings):
    tracker = RecordingTracker(fails={"finish", "artifact", "figure"})
    sink = make_sink(tracker)
    sink.log((1,), {"loss": 1.0})
    sink.figure("sheet", "missing.jpg")
    sink.artifact("report", "missing.html")
    sink.finish("finished")
    assert tracker.of("finish") == [("finished",)]
    assert len(warnings) == 1


@pytest.mark.parametrize("method", ["start", "metrics", "finish"])
def test_a_tracker_that_hangs_is_not_waited_for(warnings, method):
    tracker = RecordingTracker(hangs={method})
    sink = make_sink(tracker, timeout=0.2, size=5)
    for iteration in range(1, 100):
        sink.log((iteration,), {"loss": 1.0})
        if method == "finish" and sink.queue.full():
            time.sleep(0.01)
    sink.finish("finished")
    assert sink.thread.is_alive()
    assert sink.thread.daemon
    assert len(warnings) == 1
    assert ("does not keep up" in warnings[0]) or ("not taken everything within 0.2 s" in warnings[0])
    tracker.release.set()


def test_an_interrupted_run_hurries(monkeypatch, warnings):
    monkeypatch.setattr(tracker_sink_module, "HURRY_SECONDS", 0.1)
    tracker = RecordingTracker(hangs={"finish"})
    sink = make_sink(tracker, timeout=50.0)
    sink.log((1,), {"loss": 1.0})
    sink.finish("interrupted")
    assert "within 0.1 s" in warnings[0]
    tracker.release.set()
    sink.thread.join()


def test_a_call_only_appends_to_a_queue():
    """While the tracker does nothing at all, calls still return: the bound of the queue does not hold them up."""
    tracker = RecordingTracker(hangs={"start"})
    sink = make_sink(tracker, size=3, timeout=0.0)
    done = threading.Event()

    def train():
        for iteration in range(1000):
            sink.log((iteration,), {"loss": 1.0})
            sink.evaluation(FIGURES, iteration=iteration)
            sink.artifact("config", "missing")
        done.set()

    threading.Thread(target=train, daemon=True).start()
    assert done.wait(30)
    sink.finish("finished")
    tracker.release.set()


def test_one_tracker_does_not_disturb_another(warnings):
    broken, sound = RecordingTracker(fails={"start"}), RecordingTracker()
    group = SinkGroup([make_sink(broken), make_sink(sound)])
    group.log((1,), {"loss": 1.0})
    group.finish("finished")
    assert [call[0] for call in sound.calls] == ["start", "metrics", "finish"]
    assert len(warnings) == 1


def test_the_names_are_those_that_the_config_accepts():
    assert set(TRACKERS) | {"dllogger", "jsonl", "tensorboard"} == set(BACKENDS)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["TRACKING.BACKENDS", "('mlflow','comet')"], "TRACKING.BACKENDS must be some of dllogger"),
        (["TRACKING.BACKENDS", "('mlflow','mlflow')"], "each once"),
        (["TRACKING.PROJECT", ""], "TRACKING.PROJECT must be a name"),
        (["TRACKING.EXPERIMENT", "http://me:secret@host"], "TRACKING.EXPERIMENT is an address"),
        (["TRACKING.TIMEOUT", "-1.0"], "0 or more"),
    ],
)
def test_settings_are_checked(keys, message):
    config = cfg.clone()
    config.merge_from_list(["MODEL.DEVICE", "cpu", "DATALOADER.SIZE_DIVISIBILITY", 32, *keys])
    with pytest.raises(ValueError, match=message) as raised:
        validate(config)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_named_with_its_extra(name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ImportError, match=rf"TRACKING.BACKENDS has {name}.*pip install 'maskrcnn_benchmark\[{name}\]'"):
        make_tracker(name)
