"""monitor.txt: how far a job is, and why it failed. The platform reads it all the time."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from maskrcnn_benchmark.utils.files import write_atomically
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.protocol import Protocol
from maskrcnn_benchmark.ymir.values import to_number

logger = logging.getLogger("maskrcnn_benchmark.ymir")

RUNNING, FAILED = 2, 4
_MOST_LINES = 99  # that the platform reads behind the first one
_WEIGHTS = {"PREPROCESS_WEIGHT": 1e-5, "TASK_WEIGHT": 0.99998, "POSTPROCESS_WEIGHT": 1e-5}


@dataclass(frozen=True)
class Monitor:
    """Writes the one record that monitor.txt holds.

    Args:
        path: of the file.
        task_id: of the job.
        protocol: whether there is a fifth column.
    """

    path: str
    task_id: str
    protocol: Protocol

    def running(self, percent: float) -> None:
        """The job is so far, 0 to 1."""
        codes = [int(ReturnCode.OK)] if self.protocol.has_return_codes else []
        self._write(self._line(percent, RUNNING, *codes))

    def failed(self, code: ReturnCode, message: str, details: str = "") -> None:
        """The job has ended without its result.

        Args:
            code: for the platform.
            message: one sentence; line breaks in it become spaces.
            details: further lines, a stack for instance.
        """
        message = " ".join(message.split())
        lines = details.strip().splitlines()[-_MOST_LINES + 1 :]
        if self.protocol.has_return_codes:
            text = self._line(1.0, FAILED, int(code), message)
        else:
            text = self._line(1.0, FAILED)
            lines = [f"{int(code)} {message}", *lines]
        self._write("".join([text, *(f"{line}\n" for line in lines)]))

    def _line(self, percent: float, state: int, *more: int | str) -> str:
        record = (self.task_id, time.time(), f"{percent:.2f}", state, *more)
        return "\t".join(map(str, record)) + "\n"

    def _write(self, text: str) -> None:
        """Replace the record; on a full disk one that is there can still be written over, and nothing ends for it."""
        content = text.encode("utf-8", "replace")
        try:
            write_atomically(self.path, lambda file: file.write(content))
        except OSError as error:
            try:
                with open(self.path, "r+b") as file:
                    file.write(content)
                    file.truncate()
            except OSError:
                sys.stderr.write(f"{self.path} cannot be written ({error.strerror or error}): {text}")


@dataclass(frozen=True)
class Share:
    """The part of the whole job that one phase takes, and the three parts of that phase.

    Args:
        report: takes the progress of the whole job, 0 to 1.
        begin, end: of the phase in the whole.
        weights: of preparation, the task itself and what comes after it; their sum is 1.
    """

    report: Callable[[float], None]
    begin: float
    end: float
    weights: tuple[float, float, float]

    def prepared(self, part: float) -> None:
        """So much of the preparation is done."""
        self._tell(self.weights[0] * part)

    def done(self, part: float) -> None:
        """So much of the task is done."""
        self._tell(self.weights[0] + self.weights[1] * part)

    def finished(self, part: float) -> None:
        """So much of what comes after the task is done."""
        self._tell(self.weights[0] + self.weights[1] + self.weights[2] * part)

    def _tell(self, part: float) -> None:
        self.report(self.begin + (self.end - self.begin) * min(max(part, 0.0), 1.0))


class Progress:
    """Tells the monitor of a job that goes through one phase or several.

    Args:
        monitor: is told about every per cent; None on processes that do not write.
        environment: PREPROCESS_WEIGHT, TASK_WEIGHT and POSTPROCESS_WEIGHT, where they are set.

    Raises:
        JobError: these do not add up to 1.
    """

    def __init__(self, monitor: Monitor | None, environment: Mapping[str, str] = os.environ) -> None:
        self.monitor = monitor
        self.weights = phase_weights(environment)
        self._percent = -1

    def phases(self, count: int) -> list[Share]:
        """The shares of so many phases, one after the other."""
        return [Share(self.report, index / count, (index + 1) / count, self.weights) for index in range(count)]

    def report(self, part: float) -> None:
        """So much of the whole job is done, 0 to 1; never less than before."""
        # The last per cent is the supervisor's to give, when the job has ended well.
        percent = min(int(part * 100), 99)
        if self.monitor is not None and percent > self._percent:
            self._percent = percent
            self.monitor.running(percent / 100)


def phase_weights(environment: Mapping[str, str]) -> tuple[float, float, float]:
    """The weights of preparation, task and end.

    Raises:
        JobError: they do not add up to 1, or one is negative.
    """
    values = [to_number(environment.get(name) or default, name) for name, default in _WEIGHTS.items()]
    if min(values) < 0 or abs(sum(values) - 1) > 1e-6:
        raise JobError(ReturnCode.CONFIG, f"{', '.join(_WEIGHTS)} must not be negative and add up to 1, got {values}")
    before, task, after = values
    return before, task, after
