"""SOLVER.MAX_TIME: the time that a run has, what it decides by it, and how these decisions are repeated."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import orjson
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.errors import describe
from maskrcnn_benchmark.apps.tester import Tester
from maskrcnn_benchmark.engine.time_limit import Decisions, TimeLimit
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.files import write_atomically

logger = logging.getLogger("maskrcnn_benchmark.trainer")

TIME_FILE = "time_budget.json"
TIME_FORMAT = 1
_MARGIN = 0.002  # of the budget, and at least so many seconds: the report and the end of the program
_LEAST_MARGIN = 2.0


class TimeBudget:
    """The time of a run over all its starts. OUTPUT_DIR/time_budget.json keeps how much is used and what was decided.

    Without a limit and without decisions to repeat nothing is measured or written.

    Args:
        hours: SOLVER.MAX_TIME; 0: no limit.
        fit_after: SOLVER.MAX_TIME_FIT_AFTER.
        repeat: SOLVER.MAX_TIME_REPEAT, the file of a run whose decisions hold for this one; "" for none.
        folder: OUTPUT_DIR; "" for none.
        clock: seconds since the program was started.

    Raises:
        OSError, ValueError: the file to repeat cannot be read.
    """

    def __init__(self, hours: float, fit_after: int, repeat: str, folder: str, clock: Callable[[], float]) -> None:
        self.hours = hours
        self.fit_after = fit_after
        self.folder = folder
        self.clock = clock
        self.repeat = repeat
        self.repeated = read_decisions(repeat) if repeat else None
        self.before = 0.0  # seconds of earlier starts
        self.limit: TimeLimit | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, folder: str, clock: Callable[[], float]) -> TimeBudget:
        """Read SOLVER.MAX_TIME, MAX_TIME_FIT_AFTER and MAX_TIME_REPEAT.

        Args:
            cfg: the whole config.
            folder, clock: as for the class.

        Raises:
            ValueError: the schedule is shorter than the run to repeat.
        """
        solver = cfg.SOLVER
        budget = cls(solver.MAX_TIME, solver.MAX_TIME_FIT_AFTER, solver.MAX_TIME_REPEAT, folder, clock)
        needed = (budget.repeated and budget.repeated.last) or 0
        if needed > solver.MAX_ITER:
            raise ValueError(
                f"{solver.MAX_TIME_REPEAT} is of a run of {needed} iterations, but SOLVER.MAX_ITER is "
                f"{solver.MAX_ITER}; set SOLVER.MAX_ITER to what it was there"
            )
        return budget

    @property
    def seconds(self) -> float:
        """The budget; 0: no limit."""
        return self.hours * 3600

    def used(self) -> float:
        """Seconds that the run has taken, over all starts."""
        return self.before + self.clock()

    def make_limit(
        self, cfg: CfgNode, *, start: int, schedule: Any, checkpointer: Any, tester: Tester | None, model: nn.Module
    ) -> TimeLimit:
        """What ends the training loop; measures what comes after it. All processes call it.

        Args:
            cfg: reads SOLVER.
            start: iterations that are done.
            schedule: of the learning rate.
            checkpointer: None where nothing is saved.
            tester: of the end of the run; None where it is not evaluated.
            model: as it is trained.
        """
        solver = cfg.SOLVER
        decisions = self._decisions_before(start)
        per_update = solver.ACCUMULATE_STEPS if solver.ACCUMULATE_GRAD else 1
        further = 0.0
        if self.hours:
            if checkpointer is not None:
                checkpointer.try_out()
            if tester is not None:
                tester.estimate(model)
                further = tester.seconds / solver.TEST_PERIOD if solver.TEST_PERIOD else 0.0
            logger.info(
                "%.0f s of %.0f s are used; %.1f s are kept for the last checkpoint and its evaluation",
                self.used(), self.seconds, self._reserve(checkpointer, tester),
            )  # fmt: skip
        self.limit = TimeLimit(
            solver.MAX_ITER,
            budget=self.seconds,
            clock=self.used,
            reserve=lambda: self._reserve(checkpointer, tester),
            further=further,
            steps_per_update=per_update,
            fit_after=self.fit_after,
            schedule=schedule,
            decisions=decisions,
            keep=lambda limit: self._write(),
        )
        return self.limit

    def _reserve(self, checkpointer: Any, tester: Tester | None) -> float:
        parts = (checkpointer.write_seconds if checkpointer is not None else 0.0, tester.seconds if tester else 0.0)
        return sum(parts) + max(self.seconds * _MARGIN, _LEAST_MARGIN)

    def allows(self, seconds: float) -> bool:
        """Whether there is still time for something; the same on every process, which all ask."""
        return not self.hours or comm.broadcast(self.used() + seconds <= self.seconds)

    @property
    def is_short(self) -> bool:
        """Whether the run is shorter than the config says."""
        return self.limit is not None and self.limit.is_short

    def finish(self) -> None:
        """The run is at its end."""
        if self.limit is not None and self.hours:
            self._write(finished=True)
            logger.info("%.1f s of the %.1f s of SOLVER.MAX_TIME were used", self.used(), self.seconds)

    def _decisions_before(self, start: int) -> Decisions:
        """What holds already: of the run to repeat, or of this run before a break."""
        own = comm.broadcast(self._read_own(start) if comm.is_main_process() else None)
        self.before = own["used_seconds"] if own else 0.0
        if self.repeated is not None:
            return self.repeated
        if not own:
            return Decisions()
        decisions = Decisions.from_dict(own)
        # An end that was decided, but not reached before a break, is decided anew: time has passed.
        if own["max_hours"] != self.hours or (decisions.last is not None and decisions.last > start):
            decisions.last = None
        return decisions

    def _read_own(self, start: int) -> dict[str, Any] | None:
        """The file of this run; None where there is none, or it is of a run that came to its end and began anew."""
        if not self.folder or not self.hours:
            return None
        try:
            own = read_time_file(os.path.join(self.folder, TIME_FILE))
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("%s; the time of earlier starts does not count", error)
            return None
        return None if own["finished"] and not start else own

    def _write(self, *, finished: bool = False) -> None:
        if not (self.folder and self.limit and comm.is_main_process()):
            return
        content = {
            "format": TIME_FORMAT,
            "max_hours": self.hours,
            "used_seconds": self.used(),
            "seconds_per_iteration": self.limit.seconds_per_iteration,
            "repeats": self.repeat,
            "finished": finished,
            **self.limit.decisions.to_dict(),
        }
        text = orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        try:
            write_atomically(os.path.join(self.folder, TIME_FILE), lambda file: file.write(text))
        except OSError as error:  # a note that fails must not cost the run
            logger.warning("%s cannot be written: %s", TIME_FILE, describe(error))


def read_time_file(path: str) -> dict[str, Any]:
    """What a run wrote about its time.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of a later layout.
    """
    try:
        with open(path, "rb") as file:
            content = orjson.loads(file.read())
        version = content["format"]
        Decisions.from_dict(content)
        content["used_seconds"] = float(content["used_seconds"])
        content["finished"] = bool(content["finished"])
        content["max_hours"] = float(content["max_hours"])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; a run with SOLVER.MAX_TIME writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({describe(error)}); take the file of another run, or none") from error
    if version != TIME_FORMAT:
        raise ValueError(f"{path} has layout {version}, this program reads {TIME_FORMAT}")
    return content


def read_run_speed(folder: str) -> float:
    """Seconds of an iteration, as a run with SOLVER.MAX_TIME measured them last.

    Raises:
        FileNotFoundError, ValueError: see `read_time_file`; also when nothing was measured.
    """
    path = os.path.join(folder, TIME_FILE)
    speed = read_time_file(path).get("seconds_per_iteration")
    if not isinstance(speed, float) or speed <= 0:
        raise ValueError(f"{path} says nothing of the speed; take a run that did some iterations")
    return speed


def read_decisions(path: str) -> Decisions:
    """What a run decided by the clock; ``path`` is its time_budget.json, or the folder with it.

    Raises:
        FileNotFoundError, ValueError: see `read_time_file`.
    """
    return Decisions.from_dict(read_time_file(os.path.join(path, TIME_FILE) if os.path.isdir(path) else path))
