"""Figures as one JSON object a line."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from maskrcnn_benchmark.tracking.sink import Step


class JsonLinesSink:
    """Append to a file: ``{"time": seconds since 1970, "iteration": int or null, "epoch"?: int, name: number, ...}``.

    Numbers that are not finite become strings ("nan", "inf"), so that every line is standard JSON.

    Args:
        path: the file, usually metrics.jsonl; an existing one is continued. A run that was killed may have left half a
            line, which then stands alone; iterations that a resumed run repeats come again.
    """

    def __init__(self, path: str) -> None:
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (open as long as the run)
        if _ends_within_a_line(path):
            self.file.write("\n")

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
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _ends_within_a_line(path: str) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _standard(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
