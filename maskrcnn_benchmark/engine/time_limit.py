"""A run that ends by the clock: the schedule fitted to the speed once, and the last iteration there is time for.

When a run ends by the clock is chance. What it decided is therefore kept, two numbers and a schedule, and a run that is
given these repeats it bit for bit without looking at a clock.
"""

from __future__ import annotations

import logging
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from maskrcnn_benchmark.engine.agreement import Agreement
from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark.trainer")

_WINDOW = 20  # iterations whose median says how long the next one takes
KEEP_SECONDS = 15.0  # between two notes of the time used, of which a killed run loses so much


@dataclass(frozen=True)
class FittedSchedule:
    """A schedule that was shortened to the measured speed.

    Args:
        after: iterations that were done when it was fitted; from there on it holds.
        seconds_per_iteration: as measured.
        max_iter: iterations.
        steps, warmup_iters: updates.
    """

    after: int
    seconds_per_iteration: float
    max_iter: int
    steps: tuple[int, ...]
    warmup_iters: int


@dataclass
class Decisions:
    """What a run decided by the clock.

    Args:
        fitted: its schedule; None where none was fitted.
        last: the iteration that became its last one for want of time; None: it came to its end.
    """

    fitted: FittedSchedule | None = None
    last: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {"fitted": asdict(self.fitted) if self.fitted else None, "last": self.last}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Decisions:
        """Take back what ``to_dict`` gave; raises KeyError, TypeError or ValueError for something else."""
        fitted, last = values["fitted"], values["last"]
        if fitted is not None:
            numbers = {key: int(fitted[key]) for key in ("after", "max_iter", "warmup_iters")}
            seconds, steps = float(fitted["seconds_per_iteration"]), tuple(map(int, fitted["steps"]))
            fitted = FittedSchedule(seconds_per_iteration=seconds, steps=steps, **numbers)
        return cls(fitted, None if last is None else int(last))


class TimeLimit:
    """Says after each iteration which one is the last. The first process looks at its clock, the others follow it.

    Args:
        last: iterations of the whole run, SOLVER.MAX_ITER; it never gets longer.
        budget: seconds that the run may take; 0: no limit.
        clock: seconds of them that are used, by earlier starts of the run too.
        reserve: seconds that are needed after the last iteration.
        further: seconds that a mean iteration takes beside its own, for evaluations on the way.
        steps_per_update: iterations an update; the run ends with an update.
        fit_after: iterations after which the schedule is fitted to the speed; 0: never.
        schedule: has ``milestones``, ``warmup_iters`` and ``reshape`` as WarmupMultiStepLR; needed for a fit.
        decisions: of this run before a break, or of the run to repeat.
        keep: called with this object when something was decided, and every KEEP_SECONDS of the budget.

    Attributes:
        last: see above, as far as it is known.
        is_short: whether the time was too short for the whole schedule, fitted or not.
    """

    def __init__(
        self,
        last: int,
        *,
        budget: float = 0.0,
        clock: Callable[[], float] = lambda: 0.0,
        reserve: Callable[[], float] = lambda: 0.0,
        further: float = 0.0,
        steps_per_update: int = 1,
        fit_after: int = 0,
        schedule: Any = None,
        decisions: Decisions | None = None,
        keep: Callable[[TimeLimit], None] | None = None,
    ) -> None:
        self.last = last
        self.budget = budget
        self.clock = clock
        self.reserve = reserve
        self.further = further
        self.steps_per_update = steps_per_update
        self.fit_after = fit_after if budget else 0
        self.schedule = schedule
        self.decisions = decisions or Decisions()
        self.keep = keep or (lambda limit: None)
        self.is_short = False
        self._agreement = Agreement()
        self._ends = False
        self._seconds: deque[float] = deque(maxlen=_WINDOW)
        self._then = self._kept = 0.0
        self._mark = (0, 0.0)  # iteration and time from which the speed is measured

    @property
    def seconds_per_iteration(self) -> float:
        """Median of the last iterations; 0 before there was one."""
        return statistics.median(self._seconds) if self._seconds else 0.0

    def begin(self, start: int) -> int:
        """Training begins after iteration ``start``; gives the last one as it is known now. All processes call it."""
        fitted, ends_at = self.decisions.fitted, self.decisions.last
        if fitted is not None:
            self.fit_after = fitted.after
            if start >= fitted.after:
                self._apply(fitted)
        elif 0 < self.fit_after <= start:
            self.fit_after += start
        if ends_at is not None:
            self._end_at(max(min(self.last, ends_at), start), "as it did the first time")
        self._then = self._kept = self.clock()
        self._mark = (start, self._then)
        if start and start < self.last and comm.broadcast(self.budget > 0 and self._left() <= 0):
            self._end_at(start)
        return self.last

    def after(self, iteration: int, *, updated: bool) -> int:
        """The last iteration, now that one is done: the same on every process, which all call it.

        Args:
            iteration: the one that is done.
            updated: whether it ended with an update.
        """
        if self.budget:
            self._note(iteration)
        if iteration == self.fit_after:
            fitted = self.decisions.fitted or comm.broadcast(self._fit(iteration) if comm.is_main_process() else None)
            self._apply(fitted)
            self.decisions.fitted = fitted
            self._keep()
        if self.budget:
            seen = comm.is_main_process() and self._left() < self.seconds_per_iteration * self.steps_per_update
            self._ends = self._agreement.reached(seen) or self._ends
            if self._ends and updated and iteration < self.last:
                self._end_at(iteration)
                self._keep()
        return self.last

    def _note(self, iteration: int) -> None:
        now = self.clock()
        self._seconds.append(now - self._then)
        self._then = now
        if iteration == self.fit_after // 2:  # the first iterations are slower
            self._mark = (iteration, now)
        if now - self._kept >= KEEP_SECONDS:
            self._keep()

    def _keep(self) -> None:
        self._kept = self._then
        if comm.is_main_process():
            self.keep(self)

    def _left(self) -> float:
        """Seconds for iterations."""
        return self.budget - self.reserve() - self.clock()

    def _end_at(self, iteration: int, why: str = "the time is used up (SOLVER.MAX_TIME)") -> None:
        """Let an iteration be the last one."""
        if iteration < self.last:
            if comm.is_main_process():
                logger.warning("Training ends after iteration %d of %d: %s", iteration, self.last, why)
            self.is_short = True
            self.last = self.decisions.last = iteration

    def _fit(self, iteration: int) -> FittedSchedule:
        """The schedule for which there is time at the speed of the iterations so far."""
        since, then = self._mark
        pace = (self._then - then) / max(iteration - since, 1)
        left = max(self._left(), 0.0)
        affordable = iteration + (int(left / (pace + self.further)) if pace > 0 else self.last)
        max_iter = max(affordable // self.steps_per_update * self.steps_per_update, iteration)
        max_iter = min(self.last, max_iter)
        factor, warmup = max_iter / self.last, self.schedule.warmup_iters
        done = iteration // self.steps_per_update
        return FittedSchedule(
            after=iteration,
            seconds_per_iteration=pace,
            max_iter=max_iter,
            steps=tuple(round(step * factor) for step in self.schedule.milestones),
            warmup_iters=warmup if done >= warmup else max(round(warmup * factor), done),
        )

    def _apply(self, fitted: FittedSchedule) -> None:
        if fitted.max_iter >= self.last:
            return
        if comm.is_main_process():
            logger.warning(
                "At %.4f s an iteration there is time for %d iterations of %d: steps are now at %s, the warm-up has %d "
                "(SOLVER.MAX_TIME_FIT_AFTER)",
                fitted.seconds_per_iteration, fitted.max_iter, self.last, fitted.steps, fitted.warmup_iters,
            )  # fmt: skip
        self.is_short = True
        self.last = fitted.max_iter
        self.schedule.reshape(fitted.steps, fitted.warmup_iters)
