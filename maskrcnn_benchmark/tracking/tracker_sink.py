"""Hands a run's figures to a tracker without ever waiting for it."""

from __future__ import annotations

import functools
import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from maskrcnn_benchmark.tracking.secrets import hide_secrets, shareable
from maskrcnn_benchmark.tracking.sink import Evaluation, MetricSink, Step
from maskrcnn_benchmark.tracking.tracker import RunIds, TrackedRun, Tracker

logger = logging.getLogger("maskrcnn_benchmark.trainer")

QUEUE_SIZE = 1000
"""Calls that may wait for a tracker: with a figure every 20 iterations, most of a day's at a second each."""
HURRY_SECONDS = 10.0
"""What an interrupted run gives a tracker at its end: whoever interrupts soon loses patience."""

Call = Callable[[], object]


class TrackerSink(MetricSink):
    """A receiver that passes everything on to a tracker in a thread of its own.

    A tracker that fails or does not answer says so in one warning. What it did not take is lost to it, and to it
    alone; later figures are tried again, unless its run could not even be begun. The training loop never waits: it
    only appends to a queue, and what finds the queue full is left out.

    The tracker's run begins with the first figures. By then the loader's workers have been forked, which must not
    happen while another thread is within imports.

    Args:
        tracker: the backend.
        run: what it is told of the run.
        size: calls that may wait.
    """

    def __init__(self, tracker: Tracker, run: TrackedRun, *, size: int = QUEUE_SIZE) -> None:
        self.tracker = tracker
        self.run = run
        self.ids = RunIds(run.folder)
        self.queue: queue.Queue[Call | None] = queue.Queue(size)
        self.thread: threading.Thread | None = None
        self.settings = dict(run.settings)
        self.last_iteration = 0
        self.goes_on = True
        self.has_warned = self.has_ended = self.is_lost = False

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Trackers have no place for units."""

    def log(self, step: Step, data: Mapping[str, Any], *, text: Mapping[str, str] | None = None) -> None:
        """Pass numbers on; settings of the start become settings of the tracker's run."""
        if isinstance(step, str):
            self.settings.update(data)
            return
        numbers = {name: float(value) for name, value in data.items() if isinstance(value, int | float)}
        if len(step) > 1:
            numbers["epoch"] = float(step[1])
        if step:
            self.last_iteration = step[0]
        self._pass_on(functools.partial(self.tracker.metrics, numbers, step[0] if step else None))

    def rewind(self, iteration: int) -> None:
        """A run from the beginning is a new one for the tracker too; a resumed one goes on with the old one."""
        self.goes_on = iteration > 0
        self.last_iteration = iteration

    def evaluation(self, figures: Evaluation, *, iteration: int | None = None) -> None:
        """Pass the figures on as bbox/AP and so on."""
        iteration = self.last_iteration if iteration is None else iteration
        numbers = {f"{task}/{name}": float(value) for task, part in figures.items() for name, value in part.items()}
        self._pass_on(functools.partial(self.tracker.metrics, numbers, iteration))

    def figure(self, name: str, path: str) -> None:
        """Pass a picture on."""
        self._pass_on(functools.partial(self.tracker.figure, name, path, self.last_iteration))

    def artifact(self, name: str, path: str) -> None:
        """Pass a file on, a text without secrets."""

        def send() -> None:
            with shareable(path) as cleaned:
                self.tracker.artifact(name, cleaned)

        self._pass_on(send)

    def close(self) -> None:
        """As `finish` for a run that went well."""
        self.finish("finished")

    def finish(self, status: str) -> None:
        """Tell the tracker that the run has ended, and wait for it: ``run.timeout`` seconds at most."""
        if self.thread is None or self.has_ended:
            return
        self.has_ended = True
        limit = self.run.timeout if status == "finished" else min(self.run.timeout, HURRY_SECONDS)
        deadline = time.monotonic() + limit
        for call in (functools.partial(self.tracker.finish, status), None):
            try:
                self.queue.put(call, timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Full:
                break
        self.thread.join(max(deadline - time.monotonic(), 0.0))
        if self.thread.is_alive():
            self._warn(f"has not taken everything within {limit:g} s; it is not waited for (TRACKING.TIMEOUT)")

    def _pass_on(self, call: Call) -> None:
        if self.has_ended or self.is_lost:
            return
        if self.thread is None:
            self.thread = threading.Thread(target=self._work, name=f"tracker {self.tracker.name}", daemon=True)
            self.thread.start()
        try:
            self.queue.put_nowait(call)
        except queue.Full:
            self._warn("does not keep up; figures are left out")

    def _work(self) -> None:
        """What the thread does."""
        before = self.ids.find(self.tracker.name) if self.goes_on else None
        run = replace(self.run, settings=self.settings, run_id=before)
        started: list[str | None] = []
        if not self._try(lambda: started.append(self.tracker.start(run)), "cannot begin a run"):
            self.is_lost = True
            return
        self._try(lambda: self.ids.keep(self.tracker.name, *started), "has a run that cannot be written down")
        for call in iter(self.queue.get, None):
            self._try(call, "has failed")

    def _try(self, call: Call, what: str) -> bool:
        """Whether a call went well; of the first that did not, a warning tells why."""
        try:
            call()
        except (Exception, SystemExit) as error:  # a foreign program may fail in every way
            reason = " ".join(str(error).split()) or type(error).__name__
            self._warn(f"{what} ({reason[:300]})")
            logger.debug("%s", hide_secrets(traceback.format_exc()))
            return False
        return True

    def _warn(self, what: str) -> None:
        if not self.has_warned:
            self.has_warned = True
            text = hide_secrets(f"The tracker {self.tracker.name} {what}; training does not depend on it")
            logger.warning("%s", text)
