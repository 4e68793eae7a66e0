"""Meters, log lines and the progress bar of the training loop."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from maskrcnn_benchmark.tracking import MetricSink, SinkGroup
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.metric_logger import MetricLogger, peak_memory_mib

logger = logging.getLogger("maskrcnn_benchmark.trainer")


class TrainProgress:
    """Keeps the time and the losses of a run, and tells of them.

    Args:
        start: iterations done before.
        last: last iteration of the run.
        device: whose memory is reported.
        iterations_per_epoch: for the epoch beside the iteration; 0 for none.
        sink: receives the figures of each report.
    """

    def __init__(
        self, start: int, last: int, *, device: torch.device, iterations_per_epoch: int, sink: MetricSink | None
    ) -> None:
        self.last = last
        self.device = device
        self.iterations_per_epoch = iterations_per_epoch
        self.sink = sink or SinkGroup()
        self.losses = MetricLogger(delimiter="  ")
        self.times = MetricLogger(delimiter="  ")
        # On a terminal only; a log file gets plain lines.
        shown = comm.is_main_process() and sys.stderr.isatty()
        self.bar = tqdm(initial=start, total=last, unit="it", dynamic_ncols=True, disable=not shown)

    def start(self) -> None:
        """The loop begins: the clock runs."""
        self.begin = self.end = self.arrived = time.perf_counter()

    def seconds(self) -> float:
        """Wall time since ``start``."""
        return time.perf_counter() - self.begin

    def data_arrived(self) -> None:
        """The loader has given a batch."""
        self.arrived = time.perf_counter()

    def add_losses(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Take the losses of some iterations."""
        for row in rows:
            self.losses.update(**row)

    def iteration_done(self) -> None:
        """An iteration has ended (on a GPU: has been queued, unless its losses were read)."""
        now = time.perf_counter()
        self.times.update(time=now - self.end, data=self.arrived - self.end)
        self.end = now
        self.bar.update()

    def report(self, iteration: int, *, lr: float) -> None:
        """Write the log line of an iteration, and hand its figures to the sink."""
        memory = peak_memory_mib(self.device)
        eta = str(datetime.timedelta(seconds=int(self.times.time.global_avg * (self.last - iteration))))
        parts = (f"eta: {eta}", f"iter: {iteration}", f"{self.losses}", f"{self.times}")
        line = "  ".join((*parts, f"lr: {lr:.6f}", f"max mem: {memory:.0f}"))
        logger.info(line, extra={"periodic": True})
        meters = {**self.losses.meters, **self.times.meters}
        figures: dict[str, Any] = {"eta": eta, "learning_rate": lr, "memory": memory}
        figures.update({name: meter.avg for name, meter in meters.items()})
        step = (iteration,)
        if self.iterations_per_epoch:
            step += (iteration // self.iterations_per_epoch,)
        self.sink.log(step, figures, text={**self.losses.get_dict(), **self.times.get_dict()})
        if "loss" in self.losses.meters:  # it is not where every update so far was skipped
            self.bar.set_postfix_str(f"loss {self.losses.loss.avg:.4f}")

    def close(self) -> None:
        """Take the progress bar away."""
        self.bar.close()

    def state_dict(self) -> dict[str, Any]:
        """The loss series, so that the log lines of a resumed run go on as if there had been no break."""
        return self.losses.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self.losses.load_state_dict(state)
