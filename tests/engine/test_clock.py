"""Nothing that is measured follows the wall clock, which somebody sets, or a time server moves."""

from __future__ import annotations

import datetime
import io
import itertools
import json
import time

import torch

from maskrcnn_benchmark.engine.progress import TrainProgress
from maskrcnn_benchmark.engine.trainer import do_train
from maskrcnn_benchmark.tracking import DLLoggerSink
from tests.engine.stand_ins import RecordingSink, TinyLoader, make_run


def set_clocks(monkeypatch, *, step):
    """A wall clock that leaps a day ahead, then two back, and so on; a monotonic one that moves on by ``step`` s."""
    days = itertools.cycle((86400.0, -172800.0, 43200.0))
    wall, ticks = itertools.accumulate(days, initial=1.7e9), itertools.count(5.0, step)

    class Leaping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(next(wall))

    monkeypatch.setattr(time, "time", lambda: next(wall))
    monkeypatch.setattr(datetime, "datetime", Leaping)
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))


def test_time_left_and_time_taken(monkeypatch):
    set_clocks(monkeypatch, step=1.0)
    sink = RecordingSink()
    progress = TrainProgress(0, 100, device=torch.device("cpu"), iterations_per_epoch=0, sink=sink)
    progress.start()
    for _ in range(10):  # two looks at the clock each: 2 s
        progress.data_arrived()
        progress.iteration_done()
    progress.add_losses([{"loss": 1.0}])
    progress.report(10, lr=0.1)
    ((_, figures, _),) = sink.rows
    assert figures["eta"] == "0:03:00"
    assert (figures["time"], figures["data"]) == (2.0, 1.0)
    assert progress.seconds() == 21.0


def test_elapsed_time_of_dllogger(monkeypatch, tmp_path):
    set_clocks(monkeypatch, step=0.5)
    sink = DLLoggerSink(str(tmp_path / "dllogger.out"), io.StringIO())
    for iteration in range(3):
        sink.log((iteration,), {"loss": 1.0})
    sink.close()
    lines = [json.loads(line.removeprefix("DLLL ")) for line in (tmp_path / "dllogger.out").read_text().splitlines()]
    assert [line["elapsedtime"] for line in lines] == ["0.5", "1.0", "1.5"]


def test_a_run_under_a_leaping_clock(monkeypatch, tmp_path):
    model, optimizer, scheduler, checkpointer = make_run(tmp_path / "a")
    plain = make_run(tmp_path / "b")
    do_train(plain[0], TinyLoader(6), *plain[1:3], None, "cpu", 0, {"iteration": 0})
    set_clocks(monkeypatch, step=0.25)
    loader = TinyLoader(6)
    summary = do_train(model, loader, optimizer, scheduler, checkpointer, "cpu", 2, {"iteration": 0}, log_period=1)
    assert 0 < summary.seconds < 60
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain[0].parameters(), strict=True))
    # the newest checkpoint is the one that was written last, whatever the times of the files are
    assert checkpointer.get_checkpoint_file().endswith("model_final.pth")
