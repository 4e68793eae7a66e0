"""How long a program has been running, counted from the moment the system started it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

_IMPORTED = time.monotonic()
_STATUS = "/proc/self/stat"
_START_TIME = 19  # fields after the name, which may itself hold blanks and brackets
_first = True


def process_age() -> float:
    """Seconds since the system started this process; where that is not known, since this module was imported."""
    try:
        with open(_STATUS, encoding="utf-8", errors="replace") as file:
            ticks = int(file.read().rpartition(")")[2].split()[_START_TIME])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED


def start_run_clock() -> Callable[[], float]:
    """A clock of seconds for one run: from the start of the process for its first run, from now for later ones."""
    global _first
    begin = time.monotonic() - (process_age() if _first else 0.0)
    _first = False
    return lambda: time.monotonic() - begin
