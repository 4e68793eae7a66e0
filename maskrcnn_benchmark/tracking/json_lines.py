"""Figures as one JSON object a line."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from maskrcnn_benchmark.tracking.sink import MetricSink, Step

logger = logging.getLogger("maskrcnn_benchmark.trainer")


class JsonLinesSink(MetricSink):
    """Append to a file: ``{"time": seconds since 1970, "iteration": int or null, "epoch"?: int, name: number, ...}``.

    Numbers that are not finite become strings ("nan", "inf"), so that every line is standard JSON.

    A line is in the file when ``log`` returns. What cannot be written, on a full disk, comes with the next line.

    Args:
        path: the file, usually metrics.jsonl; an existing one is continued. A run that was killed may have left half a
            line, which then stands alone unless ``rewind`` takes it away.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115  (open as long as the run)
        self.unwritten = b"\n" if _ends_within_a_line(path) else b""

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Units are part of the documentation here, not of the file."""

    def log(self, step: Step, data: Mapping[str, Any], *, text: Mapping[str, str] | None = None) -> None:
        """Write one line; settings (step "PARAMETER") are left to config.yml."""
        if isinstance(step, str):
            return
        line: dict[str, Any] = {"time": round(time.time(), 3), "iteration": step[0] if step else None}
        if len(step) > 1:
            line["epoch"] = step[1]
        line.update({name: _standard(value) for name, value in data.items()})
        self.unwritten += f"{json.dumps(line)}\n".encode()
        while self.unwritten:
            self.unwritten = self.unwritten[self.file.write(self.unwritten) :]

    def rewind(self, iteration: int) -> None:
        """Cut off what comes after the last line of an iteration up to this one: each iteration is there once."""
        lines_taken = cut_back(self.path, iteration)
        self.unwritten = b""
        if lines_taken:
            logger.info("%d lines after iteration %d were taken out of %s", lines_taken, iteration, self.path)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def cut_back(path: str, iteration: int) -> int:
    """Cut a file of JSON lines off behind the last line whose ``iteration`` is at most this one; half lines go too.

    Args:
        path: the file.
        iteration: the last one that stays.

    Returns:
        How many lines were cut off.
    """
    with open(path, "r+b") as file:
        end = size = lines_after = 0
        for line in file:
            size += len(line)
            lines_after += 1
            if line.endswith(b"\n") and _iteration_of(line) <= iteration:
                end, lines_after = size, 0
        file.truncate(end)
    return lines_after


def _iteration_of(line: bytes) -> float:
    """The iteration of a line; none, and what is no JSON, counts as later than all."""
    try:
        iteration = json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return math.inf
    return iteration if isinstance(iteration, int) else math.inf


def _ends_within_a_line(path: str) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _standard(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
