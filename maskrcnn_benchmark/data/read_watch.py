"""Which file each loader process reads, and for how long: a read that stalls is named while training waits for it."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import torch

logger = logging.getLogger(__name__)

SLOW_SECONDS = 30.0  # a local disk answers in milliseconds, a busy network file system within seconds
_ROW = np.dtype([("begin", "<i8"), ("end", "<i8"), ("name", "S496")])  # ns of the monotonic clock, 0 for none
_own_row: np.ndarray | None = None  # of this process


def read_bytes(path: str | Path) -> bytes:
    """The content of a file; while it is read, the watch of this process's loader knows."""
    row = _own_row
    if row is None:
        return Path(path).read_bytes()
    row["name"] = os.fsencode(path)[-_ROW["name"].itemsize :]
    row["begin"] = time.monotonic_ns()
    try:
        return Path(path).read_bytes()
    finally:
        row["end"], row["begin"] = time.monotonic_ns(), 0


def watch_own_reads(table: torch.Tensor, worker: int) -> None:
    """Let `read_bytes` of this process write into a row of a watch's table."""
    global _own_row
    _own_row = table.numpy().view(_ROW)[worker, 0:1]


class ReadWatch:
    """Knows what the processes of one loader read, and warns of reads that take long.

    All times are of the monotonic clock, which processes of one machine share and nobody sets.

    Args:
        num_rows: one a process.
        slow_seconds: a read that takes longer is told of, again when it has taken twice as long, and when it ends.

    Attributes:
        table: uint8 [rows, bytes of a row], in shared memory.
    """

    def __init__(self, num_rows: int, slow_seconds: float = SLOW_SECONDS) -> None:
        self.slow_seconds = slow_seconds
        self.table = torch.zeros((num_rows, _ROW.itemsize), dtype=torch.uint8).share_memory_()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to warn, in a thread that ends with this object."""
        if self._thread is None:
            self._thread = threading.Thread(target=_warn, args=(weakref.ref(self),), name="read watch", daemon=True)
            self._thread.start()

    def reading(self, row: int) -> tuple[str, int]:
        """The file that a process reads and when that began, in ns; ("", 0) when it reads none."""
        entry = self._entry(row)
        begin = int(entry["begin"])
        return (os.fsdecode(entry["name"]), begin) if begin else ("", 0)

    def describe(self, row: int) -> str:
        """What a process reads, or has read last, for a message."""
        name, begin = self.reading(row)
        if begin:
            return f"has been reading {name} for {_seconds_since(begin):.0f} s"
        entry = self._entry(row)
        if not entry["end"]:
            return "has not read an image yet"
        return f"read {os.fsdecode(entry['name'])} {_seconds_since(int(entry['end'])):.0f} s ago and nothing since"

    def _entry(self, row: int) -> np.void:
        return self.table.numpy().view(_ROW)[row, 0]


class _Told:
    """What has been said of one process: the read (file, begin), and after how many seconds it is told of again."""

    def __init__(self, slow_seconds: float) -> None:
        self.read: tuple[str, int] = ("", 0)
        self.next_after = self.slow_seconds = slow_seconds

    def look(self, row: int, read: tuple[str, int]) -> None:
        """Warn where it is due."""
        if read != self.read:
            if self.next_after > self.slow_seconds:
                logger.warning("%s has come after %.0f s at most", self.read[0], _seconds_since(self.read[1]))
            self.read, self.next_after = read, self.slow_seconds
        seconds = _seconds_since(read[1]) if read[1] else 0.0
        if seconds >= self.next_after:
            self.next_after = 2 * max(seconds, self.slow_seconds)
            logger.warning(
                "loader process %d has been waiting for %s for %.0f s; training goes on when it comes: see whether the "
                "disk or network behind it answers",
                row,
                read[0],
                seconds,
            )


def _warn(watch_of: weakref.ref[ReadWatch]) -> None:
    told: list[_Told] = []
    while (watch := watch_of()) is not None:
        told = told or [_Told(watch.slow_seconds) for _ in range(len(watch.table))]
        for row, own in enumerate(told):
            own.look(row, watch.reading(row))
        pause = min(watch.slow_seconds / 4, 1.0)
        del watch  # the loader may go
        time.sleep(pause)


def _seconds_since(begin_ns: int) -> float:
    return (time.monotonic_ns() - begin_ns) / 1e9
