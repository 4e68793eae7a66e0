"""The figures of a run that was interrupted: once each after the resume, and never the reason why training ends."""

from __future__ import annotations

import json
import logging
import os

import pytest

from maskrcnn_benchmark.tracking import JsonLinesSink, SinkGroup, TensorBoardSink
from maskrcnn_benchmark.tracking.evaluations import EvaluationLog
from maskrcnn_benchmark.tracking.json_lines import cut_back


def iterations(path):
    return [json.loads(line)["iteration"] for line in path.read_text().splitlines()]


def log(sink, *numbers):
    for number in numbers:
        sink.log((number,), {"loss": float(number)})


def test_each_iteration_is_there_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonLinesSink(str(path))
    log(sink, 20, 40, 60, 80)
    sink.close()
    with path.open("a") as file:
        file.write('{"time": 1.5, "iterat')  # killed here; the checkpoint is of iteration 50
    sink = JsonLinesSink(str(path))
    sink.rewind(50)
    log(sink, 60, 80, 100)
    sink.log((), {"BBOX_mAP": 0.3})
    sink.close()
    assert iterations(path) == [20, 40, 60, 80, 100, None]


@pytest.mark.parametrize(
    ("lines", "iteration", "left"),
    [
        ([20, 40], 40, [20, 40]),
        ([20, 40], 0, []),
        ([20, 40, None], 40, [20, 40]),  # the totals of a run that ended come again
        ([600, 800, 20, 40, 60], 40, [600, 800, 20, 40]),  # counted anew since the number of processes changed
        ([], 7, []),
    ],
)
def test_what_is_cut_off(tmp_path, lines, iteration, left):
    path = tmp_path / "lines"
    path.write_text("".join(json.dumps({"iteration": number}) + "\n" for number in lines))
    assert cut_back(str(path), iteration) == len(lines) - len(left)
    assert iterations(path) == left


@pytest.mark.parametrize(
    "broken", [b"[1, 2]\n", b"no json\n", b'{"time": 3}\n', b'{"iteration": "x"}\n', b"\xff\xfe\n"]
)
def test_lines_of_something_else_are_cut_off_at_the_end_only(tmp_path, broken):
    path = tmp_path / "lines"
    path.write_bytes(broken + b'{"iteration": 1}\n' + broken)
    assert cut_back(str(path), 5) == 1
    assert path.read_bytes() == broken + b'{"iteration": 1}\n'


def test_tensorboard_shows_each_iteration_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = TensorBoardSink(str(tmp_path))
    log(first, 20, 40, 60)
    first.close()
    second = TensorBoardSink(str(tmp_path))
    second.rewind(50)
    second.log((60,), {"loss": -60.0})
    log(second, 80)
    second.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(20, 20), (40, 40), (60, -60), (80, 80)]


@pytest.fixture
def errors(monkeypatch):
    """What the receivers say when they cannot write."""
    found = []
    logger = logging.getLogger("maskrcnn_benchmark.trainer")
    monkeypatch.setattr(logger, "error", lambda message, *args: found.append(message % args))
    return found


def test_figures_that_cannot_be_written_come_later_and_end_nothing(tmp_path, errors):
    """Half a line goes to the disk before it is full."""

    class FullDisk:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if len(data) < 6:
                raise OSError(28, "No space left on device")
            return self.file.write(data[: len(data) // 2])

    path = tmp_path / "metrics.jsonl"
    sink = JsonLinesSink(str(path))
    file, sink.file = sink.file, FullDisk(sink.file)
    group = SinkGroup([sink])
    log(group, 20, 40)
    assert errors == ["JsonLinesSink cannot write (No space left on device); training goes on"]
    sink.file = file
    log(group, 60)
    group.close()
    assert iterations(path) == [20, 40, 60]


def test_a_broken_pipe_does_not_end_training(errors):
    class Gone:
        def log(self, step, data, *, text=None):
            raise BrokenPipeError(32, "Broken pipe")

        def close(self):
            raise BrokenPipeError(32, "Broken pipe")

    group = SinkGroup([Gone()])
    log(group, 1, 2)
    group.close()
    assert len(errors) == 1


def test_evaluations_are_kept_up_to_the_iteration(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    kept = EvaluationLog(str(path))
    for iteration in (100, 200, 300):
        kept.add(iteration, {"bbox": {"AP": iteration / 1000}, "segm": {"AP": 0.1}})
    assert EvaluationLog(str(path), iteration=200).find(200) == {"bbox": {"AP": 0.2}, "segm": {"AP": 0.1}}
    resumed = EvaluationLog(str(path), iteration=200)
    assert resumed.find(300) is None
    resumed.add(250, {})
    assert iterations(path) == [100, 200, 250]
    assert EvaluationLog(None).find(100) is None


def test_evaluations_that_cannot_be_written_end_nothing(tmp_path, errors):
    kept = EvaluationLog(str(tmp_path / "missing" / "evaluations.jsonl"))
    kept.add(100, {"bbox": {"AP": 0.3}})
    assert kept.find(100) == {"bbox": {"AP": 0.3}}
    assert "evaluations.jsonl cannot be written" in errors[0]
    assert os.listdir(tmp_path) == []
