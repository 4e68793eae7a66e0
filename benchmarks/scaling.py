"""How time and memory grow with the work: pictures, batch, objects, proposals, classes, detections; ops by themselves.

    python benchmarks/scaling.py                         all, about four minutes on a quiet core
    python benchmarks/scaling.py "training step" NMS     those whose name begins so

One thread, processor time, the median of three calls; memory is how far a call raised the process's above what it held
before. The exponent is the slope of the logarithms, without the smallest amount of a sweep: 1 is in proportion, 2 is
quadratic, below 1 is fixed cost that still shows. A cliff is a pair of neighbours with a slope above 1.5.

Prints a table and writes benchmarks/results/scaling.json, and scaling.html with a chart of each sweep.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("MASKRCNN_REQUIRE_EXT", "1")

import torch

from benchmarks._options import add_suite_options
from benchmarks._rows import OURS, Row, failed_row, make_row, write_document
from benchmarks._scaling_work import Sweep, list_sweeps
from benchmarks._timing import RESULTS, machine, measure, print_table
from maskrcnn_benchmark.apps.report import page
from maskrcnn_benchmark.apps.report.charts import Series, line_chart
from maskrcnn_benchmark.utils.allocator import keep_pages

AREA = "scaling"
CLIFF = 1.5
ROUNDS = 3


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """The exponent that fits (amount, value) best, by least squares of the logarithms; None for fewer than two."""
    logs = [(math.log(amount), math.log(value)) for amount, value in points if amount > 0 and value > 0]
    if len({x for x, _ in logs}) < 2:
        return None
    centre_x, centre_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    above = sum((x - centre_x) * (y - centre_y) for x, y in logs)
    return above / sum((x - centre_x) ** 2 for x, _ in logs)


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The growth over the rows of one sweep: exponents of time and memory, and the steepest step between neighbours."""
    points = [(row["amount"], row["results"][OURS]) for row in rows if "results" in row]
    times = [(amount, result["median"]) for amount, result in points]
    memory = [(amount, result.get("peak_memory_mib") or 0.0) for amount, result in points]
    upper = 1 if len(points) > 3 else 0  # the smallest amount shows the fixed cost most
    steps = [slope(times[index : index + 2]) for index in range(len(times) - 1)]
    return {
        "name": rows[0]["name"],
        "time_exponent": _rounded(slope(times[upper:])),
        "memory_exponent": _rounded(slope(memory[upper:])),
        "steepest": _rounded(max((step for step in steps if step is not None), default=None)),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def measure_sweep(sweep: Sweep, deadline: float) -> tuple[list[Row], list[str]]:
    """The rows of a sweep, small amounts first, and what the deadline did not leave room for."""
    rows: list[Row] = []
    left_out: list[str] = []
    last = 0.0
    for place, (amount, words, make) in enumerate(sweep.points):
        growth = amount / sweep.points[place - 1][0] if place else 1.0
        if time.perf_counter() + last * growth > deadline:
            left_out.append(f"{sweep.name}: {words}")
            continue
        begin = time.perf_counter()
        try:
            work = make()
            result = measure({OURS: work}, rounds=ROUNDS, clock=time.process_time, shortest=0.002)[OURS]
        except (RuntimeError, MemoryError) as error:
            rows.append(failed_row(AREA, sweep.name, words, str(error).splitlines()[0], threads=1))
            continue
        last = time.perf_counter() - begin
        memory = None if result.peak_memory is None else result.peak_memory / 2**20
        rows.append(
            make_row(
                AREA,
                sweep.name,
                words,
                {OURS: [value * 1e3 for value in result.times]},
                unit="ms",
                clock="cpu",
                threads=1,
                peak_memory_mib={OURS: memory},
                amount=amount,
            )
        )
        del work
        gc.collect()
    return rows, left_out


def charts_of(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Time and memory over the amount, each beside the straight line through the last point."""
    measured = [row for row in rows if "results" in row]
    if len(measured) < 2:
        return []
    amounts = [row["amount"] for row in measured]
    found = []
    for title, key, unit in (("time", "median", "CPU ms"), ("memory", "peak_memory_mib", "MiB")):
        values = [row["results"][OURS].get(key) or 0.0 for row in measured]
        straight = [values[-1] * amount / amounts[-1] for amount in amounts]
        lines = [Series("measured", amounts, values), Series("in proportion", amounts, straight, dashed=True)]
        found.append(line_chart(f"{sweep.name}: {title}", lines, x_label=sweep.quantity, y_label=unit))
    return found


def write_page(path: Path, sweeps: Mapping[str, list[Any]], fits: Sequence[Mapping[str, Any]]) -> None:
    """The table of exponents and the charts as one HTML file."""
    head = ("work", "exponent of time", "exponent of memory", "steepest step")
    rows = [(fit["name"], fit["time_exponent"], fit["memory_exponent"], fit["steepest"]) for fit in fits]
    sections = [page.Section("growth", "Growth", page.table(head, rows))]
    sections += [
        page.Section(f"sweep-{index}", name, page.charts(charts)) for index, (name, charts) in enumerate(sweeps.items())
    ]
    facts = machine()
    text = page.render_page(
        title="Cost as the work grows",
        heading="Cost as the work grows",
        subtitle=f"One thread of {facts['cpu']} ({facts['cpu_capability']}), torch {facts['torch']}",
        tiles=[],
        notes=[],
        sections=sections,
        footer="benchmarks/scaling.py",
    )
    path.write_text(text, encoding="utf-8")


def show(rows: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]]) -> None:
    """The two tables."""
    cells = []
    for row in rows:
        result = row["results"][OURS] if "results" in row else {}
        cells.append(
            (row["name"], row["case"], result.get("median"), result.get("peak_memory_mib"), row.get("error", ""))
        )
    print_table(("work", "amount", "CPU ms", "MiB", ""), cells)
    print()
    columns = ("name", "time_exponent", "memory_exponent", "steepest")
    print_table(
        ("work", "time exponent", "memory exponent", "steepest step"), [[fit[key] for key in columns] for fit in fits]
    )
    for fit in fits:
        if (fit["steepest"] or 0) > CLIFF:
            print(f"A cliff: {fit['name']}, {fit['steepest']}")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only sweeps whose name begins so (default: all)")
    add_suite_options(parser)
    args = parser.parse_args()
    names = [sweep.name for sweep in list_sweeps(quick=args.quick)]
    for wanted in args.names:
        if not any(name.startswith(wanted) for name in names):
            parser.error(f"no sweep begins with {wanted}; there are {'; '.join(names)}")
    return args


def main() -> None:
    """Measures the chosen sweeps."""
    args = parse_arguments()
    keep_pages()
    torch.set_num_threads(1)
    deadline = time.perf_counter() + (args.time_limit or math.inf)
    rows: list[Row] = []
    left_out: list[str] = []
    fits, charts = [], {}
    out = args.out or (None if args.quick or args.names else RESULTS / "scaling.json")
    for sweep in list_sweeps(quick=args.quick):
        if args.names and not sweep.name.startswith(tuple(args.names)):
            continue
        measured, missing = measure_sweep(sweep, deadline)
        rows += measured
        left_out += missing
        if measured:
            fits.append(summarize(measured))
            charts[sweep.name] = charts_of(sweep, measured)
            print(f"{sweep.name}: time exponent {fits[-1]['time_exponent']}", flush=True)
        if out:  # after each sweep, so that a run that is cut short leaves what it has
            path = write_document(out, rows, machine=machine(), peers={}, left_out=left_out, fits=fits)
            write_page(path.with_suffix(".html"), charts, fits)
    print()
    show(rows, fits)
    if out:
        print(f"\nWritten to {path} and {path.with_suffix('.html').name}")


if __name__ == "__main__":
    main()
