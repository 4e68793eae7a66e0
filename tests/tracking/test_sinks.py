"""The formats that other programs read: DLLogger's two, JSON lines, TensorBoard events."""

from __future__ import annotations

import datetime
import io
import json
import re
import sys

import pytest

from maskrcnn_benchmark.tracking import DLLoggerSink, JsonLinesSink, SinkGroup, TensorBoardSink

TEXT = {"loss": "0.5000 (0.7500)"}


def test_dllogger_json_stream(tmp_path):
    path = tmp_path / "dllogger.out"
    sink = DLLoggerSink(str(path), None)
    sink.metadata("train_perf_fps", {"unit": "images/s"})
    sink.log("PARAMETER", {"gpu_count": 8})
    sink.log((20, 1), {"eta": "0:01:00", "loss": 0.6}, text=TEXT)
    sink.log((), {"train_perf_fps": 12.5})
    sink.close()
    lines = path.read_text().splitlines()
    assert all(line.startswith("DLLL {") for line in lines)
    records = [json.loads(line.removeprefix("DLLL ")) for line in lines]
    for record in records:
        moment = datetime.datetime.fromisoformat(record["datetime"])
        assert float(record["timestamp"]) == pytest.approx(moment.timestamp())
        assert float(record["elapsedtime"]) >= 0
    assert [record["type"] for record in records] == ["METADATA", "LOG", "LOG", "LOG"]
    assert (records[0]["metric"], records[0]["metadata"]) == ("train_perf_fps", {"unit": "images/s"})
    assert (records[1]["step"], records[1]["data"]) == ("PARAMETER", {"gpu_count": 8})
    assert (records[2]["step"], records[2]["data"]) == ([20, 1], {"eta": "0:01:00", "loss": "0.5000 (0.7500)"})
    assert (records[3]["step"], records[3]["data"]) == ([], {"train_perf_fps": 12.5})


def test_dllogger_stream():
    stream = io.StringIO()
    sink = DLLoggerSink(None, stream)
    sink.metadata("train_perf_fps", {"unit": "images/s"})
    sink.log((20, 1), {"loss": 0.6, "lr": 0.1}, text=TEXT)
    sink.log((), {"train_perf_fps": 12.5})
    first, second = stream.getvalue().splitlines()
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+"
    assert re.fullmatch(
        rf"DLL {time} - Training Iteration: 20 Training Epoch: 1 +loss : 0\.5000 \(0\.7500\) +lr : 0\.1 *", first
    )
    assert re.fullmatch(rf"DLL {time} - +train_perf_fps : 12\.5 images/s", second)


def test_json_lines_are_standard_and_survive_a_kill(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonLinesSink(str(path))
    sink.log("PARAMETER", {"gpu_count": 8})
    sink.log((20, 1), {"loss": 0.5, "eta": "0:01:00", "AP": float("nan")}, text=TEXT)
    sink.close()
    path.write_text(path.read_text() + '{"time": 12')  # the line during which the process was killed
    sink = JsonLinesSink(str(path))
    sink.log((), {"train_perf_fps": 2.0})
    sink.close()
    first, half, last = path.read_text().splitlines()
    reject = {"parse_constant": lambda name: pytest.fail(f"{name} is not JSON")}
    assert json.loads(first, **reject).items() >= {
        "iteration": 20, "epoch": 1, "loss": 0.5, "eta": "0:01:00", "AP": "nan"
    }.items()  # fmt: skip
    assert half == '{"time": 12'
    assert json.loads(last, **reject).items() >= {"iteration": None, "train_perf_fps": 2.0}.items()


def test_tensorboard_events_are_read_back(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    group = SinkGroup([TensorBoardSink(str(tmp_path))])
    group.metadata("loss", {"unit": None})
    group.log("PARAMETER", {"gpu_count": 8})
    group.log((20,), {"loss": 0.5, "eta": "0:01:00"})
    group.log((40,), {"loss": 0.25})
    group.log((), {"BBOX_mAP": 0.375})
    group.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["BBOX_mAP", "loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(20, 0.5), (40, 0.25)]
    assert [(event.step, event.value) for event in events.Scalars("BBOX_mAP")] == [(40, 0.375)]


def test_missing_tensorboard_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorBoardSink(str(tmp_path))
