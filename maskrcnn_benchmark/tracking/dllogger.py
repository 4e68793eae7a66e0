"""Figures in the two formats of DLLogger, which the harness's tools read: a JSON stream and lines on stdout."""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from maskrcnn_benchmark.tracking.sink import MetricSink, Step
from maskrcnn_benchmark.utils.logger import format_step


class DLLoggerSink(MetricSink):
    """Write ``DLLL {json}`` lines to a file and ``DLL time - step metric : value unit`` lines to a stream.

    Format as read from files that DLLogger 1.0 writes.

    Args:
        path: file of the JSON stream, written anew; None for none.
        stream: where the readable lines go; None for nowhere.
    """

    def __init__(self, path: str | None, stream: TextIO | None = sys.stdout) -> None:
        self.file = open(path, "w", encoding="utf-8") if path else None  # noqa: SIM115  (open as long as the run)
        self.stream = stream
        self.start = time.perf_counter()
        self.units: dict[str, str] = {}

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Announce a metric; its unit follows its values on the stream."""
        self.units[metric] = metadata.get("unit") or ""
        self._write_json("METADATA", datetime.datetime.now(), metric=metric, metadata=dict(metadata))

    def log(self, step: Step, data: Mapping[str, Any], *, text: Mapping[str, str] | None = None) -> None:
        """Write one line to each; where ``text`` has a figure it is preferred, as the published tools expect it."""
        now = datetime.datetime.now()
        values = {**data, **(text or {})}
        self._write_json("LOG", now, step=step if isinstance(step, str) else list(step), data=values)
        if self.stream is not None:
            figures = " ".join(f"{name} : {value} {self.units.get(name, '')}" for name, value in values.items())
            self.stream.write(f"DLL {now} - {format_step(step)} {figures}\n")
            self.stream.flush()

    def rewind(self, iteration: int) -> None:
        """The file was written anew."""

    def close(self) -> None:
        """Close the file; the stream is not ours."""
        if self.file is not None:
            self.file.close()

    def _write_json(self, kind: str, now: datetime.datetime, **fields: Any) -> None:
        if self.file is None:
            return
        head = {
            "timestamp": str(now.timestamp()),
            "datetime": str(now),
            "elapsedtime": str(round(time.perf_counter() - self.start, 6)),  # whatever is done to the clock
            "type": kind,
        }
        self.file.write(f"DLLL {json.dumps({**head, **fields})}\n")
        self.file.flush()
