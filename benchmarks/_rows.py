"""The common form of a benchmark's result: rows of samples, and the document that an area writes.

A row is one piece of work done by several contenders in turns. It keeps every sample, so that whoever reads it, people
or `benchmarks/compare.py`, can tell a difference from noise:

    {"area": "ops", "name": "roi_align", "case": "1000 rois 7x7", "threads": 1, "device": "cpu",
     "unit": "ms", "better": "lower", "clock": "cpu",
     "results": {"ours": {"median": 91.2, "samples": [90.8, 91.2, 93.0], "peak_memory_mib": 49.0},
                 "torchvision": {"median": 480.1, "samples": [479.0, 480.1, 502.3], "peak_memory_mib": 51.0}},
     "ratios": {"torchvision": 5.26}}

The i-th samples of all contenders belong to the same turn. A ratio says how many times better ours is, whichever
direction is better: the median of the turns' ratios. A row that could not be measured has ``error`` in place of
``results`` and ``ratios``.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORMAT = 1
OURS = "ours"
Row = dict[str, Any]


def make_row(
    area: str,
    name: str,
    case: str,
    samples: Mapping[str, Sequence[float]],
    *,
    unit: str,
    better: str = "lower",
    clock: str = "wall",
    threads: int | None = None,
    device: str = "cpu",
    peak_memory_mib: Mapping[str, float | None] | None = None,
    **more: Any,
) -> Row:
    """A row in the common form.

    Args:
        area: ops, step, inference, data, evaluation, start-up, scaling, train_speed or determinism.
        name: what is measured, such as the op's name; with ``case`` and ``threads`` the key of the row.
        case: shapes and settings, in words that stay the same from run to run.
        samples: contender to its values, turn by turn in the order of time. Ours is called "ours".
        unit: of the values: ms, s, MiB, images/s.
        better: "lower" or "higher".
        clock: "cpu" for processor time of the process, "wall" for elapsed time, "none" for what is no time.
        threads: of each contender; None where that means nothing.
        device: "cpu" or "cuda".
        peak_memory_mib: contender to its peak of memory.
        more: further keys for readers, such as stages; they are kept as they are.

    Raises:
        ValueError: for a contender without samples or an unknown direction.
    """
    if better not in ("lower", "higher"):
        raise ValueError(f"better is {better!r}; it is lower or higher")
    empty = [contender for contender, values in samples.items() if not values]
    if empty or not samples:
        raise ValueError(f"{name}, {case}: no samples of {', '.join(empty) or 'anything'}")
    memory = peak_memory_mib or {}
    results = {}
    for contender, values in samples.items():
        results[contender] = {
            "median": _rounded(statistics.median(values)),
            "samples": [_rounded(value) for value in values],
        }
        if memory.get(contender) is not None:
            results[contender]["peak_memory_mib"] = round(memory[contender], 1)
    row = _key(area, name, case, threads, device)
    row |= {"unit": unit, "better": better, "clock": clock, "results": results}
    if OURS in results:
        row["ratios"] = {
            contender: round(statistics.median(turn_ratios(row, contender)), 3)
            for contender in results
            if contender != OURS
        }
    return row | more


def failed_row(area: str, name: str, case: str, error: str, *, threads: int | None = None, device: str = "cpu") -> Row:
    """A row of what could not be measured, with the reason."""
    return _key(area, name, case, threads, device) | {"error": error}


def turn_ratios(row: Mapping[str, Any], contender: str) -> list[float]:
    """How many times better ours was than ``contender``, in each turn of a row."""
    ours, theirs = (row["results"][name]["samples"] for name in (OURS, contender))
    pairs = list(zip(ours, theirs, strict=False))
    return [_quotient(b, a) if row["better"] == "lower" else _quotient(a, b) for a, b in pairs]


def row_key(row: Mapping[str, Any]) -> tuple[str, str, str, int | None, str]:
    """What tells a row from all others of a document."""
    return row["area"], row["name"], row["case"], row["threads"], row["device"]


def write_document(
    path: str | Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    machine: Mapping[str, Any],
    peers: Mapping[str, str],
    left_out: Sequence[str] = (),
    **more: Any,
) -> Path:
    """Writes what an area measured, for `benchmarks/run.py` and for readers.

    Args:
        path: the JSON file; its folder is made.
        rows: of `make_row` and `failed_row`.
        machine: of `benchmarks._timing.machine`.
        peers: name to version ("0.28.0"), or to "absent: " and the reason.
        left_out: work that the time limit did not leave room for, a line each.
        more: further keys.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "format": FORMAT,
        "date": time.strftime("%Y-%m-%d"),
        "machine": dict(machine),
        "peers": dict(peers),
        "left_out": list(left_out),
        **more,
        "rows": [dict(row) for row in rows],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _key(area: str, name: str, case: str, threads: int | None, device: str) -> Row:
    return {"area": area, "name": name, "case": case, "threads": threads, "device": device}


def _quotient(above: float, below: float) -> float:
    return above / below if below else float("nan")


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
