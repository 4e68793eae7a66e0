"""What all benchmarks share: interleaved timing, peak memory, the machine they ran on, tables and JSON."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from maskrcnn_benchmark.engine.measure import processor_name

RESULTS = Path(__file__).resolve().parent / "results"
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Measurement:
    """Times of one variant in seconds, and the memory it needed beyond what was held before, in bytes."""

    times: tuple[float, ...]
    peak_memory: int | None

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return statistics.median(self.times)

    @property
    def spread(self) -> float:
        """Distance of the quartiles in seconds: how far to trust the median."""
        if len(self.times) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.times, n=4, method="inclusive")
        return high - low

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in milliseconds and MiB."""
        return {
            "median_ms": round(self.median * 1e3, 4),
            "quartile_distance_ms": round(self.spread * 1e3, 4),
            "rounds": len(self.times),
            "peak_memory_mib": None if self.peak_memory is None else round(self.peak_memory / 2**20, 1),
        }


def measure(
    variants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 9,
    budget: float = 30.0,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    shortest: float = 0.0,
) -> dict[str, Measurement]:
    """Times the variants in turn, round after round, so that a slow minute of the machine meets all of them alike.

    Args:
        variants: name to a call without arguments.
        rounds: calls of each variant, fewer (but at least 3) where they would take longer than ``budget``.
        budget: seconds for all rounds together.
        warm_up: calls of each variant before the first one that counts.
        clock: what the times are taken from; the budget is always elapsed time.
        shortest: seconds that a sample should last at least: a quick variant is called several times for each.
    """
    peaks = {name: peak_memory(call) for name, call in variants.items()}
    for _ in range(warm_up - 1):
        for call in variants.values():
            call()
    repeats = {name: _repeats(call, shortest, clock) for name, call in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    collecting = gc.isenabled()
    gc.disable()  # a collection would be charged to whichever variant runs then
    started = time.perf_counter()
    for index in range(rounds):
        if index >= 3 and (time.perf_counter() - started) * (index + 1) / index > budget:
            break
        for name in names[index % len(names) :] + names[: index % len(names)]:
            begin = clock()
            for _ in range(repeats[name]):
                variants[name]()
            times[name].append((clock() - begin) / repeats[name])
    if collecting:
        gc.enable()
    return {name: Measurement(tuple(times[name]), peaks[name]) for name in variants}


def _repeats(call: Callable[[], Any], shortest: float, clock: Callable[[], float]) -> int:
    if shortest <= 0:
        return 1
    begin = clock()
    call()
    return max(1, min(1000, round(shortest / max(clock() - begin, 1e-6))))


def peak_memory(call: Callable[[], Any]) -> int | None:
    """Calls once and returns how far resident memory rose above its level before, in bytes; None where it is unknown.

    Linux only: the kernel's high-water mark is reset first.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        # glibc keeps freed pages, which would hide the memory of every call but the first.
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _CLEAR.write_text("5")
        before = _status_bytes("VmRSS")
    except OSError:
        call()
        return None
    result = call()
    peak = _status_bytes("VmHWM") - before
    del result
    return max(peak, 0)


def _status_bytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no line {field}")


def machine() -> dict[str, Any]:
    """The hardware and software that decide the times; no name of the host."""
    return {
        "cpu": processor_name(torch.device("cpu")),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_results(name: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> Path:
    """Writes ``rows`` with the machine to results/<name>.json, in place of the last ones, and returns the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), **more, "rows": list(rows)}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints columns wide enough for their longest cell; numbers to the right."""
    cells = [list(headers)] + [[_text(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    numeric = [all(not isinstance(row[column], str) for row in rows) for column in range(len(headers))]
    for row in cells:
        columns = zip(row, widths, numeric, strict=True)
        print("  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in columns).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
