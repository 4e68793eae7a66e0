"""The page of a suite's result: one HTML file with figures, charts, the machine, and what is missing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from benchmarks._rows import OURS, Row
from maskrcnn_benchmark.apps.report import page
from maskrcnn_benchmark.apps.report.charts import Series, bar_chart, line_chart
from maskrcnn_benchmark.apps.report.page import Section, Tile

_ABSENT = "absent"
_BUSY = 0.3  # load of a core before the run from which on the page warns
_MOST_BARS = 30
_LONGEST = 3.0  # bar, in medians of its chart


def render(document: Mapping[str, Any]) -> str:
    """The page.

    Args:
        document: of `benchmarks/run.py`.
    """
    peers = [name for name, found in document["peers"].items() if not found.startswith(_ABSENT)]
    areas = {name: [row for row in document["rows"] if row["area"] == name] for name in document["areas"]}
    machine = document["machine"]
    processor = ", ".join(machine["gpus"]) or machine["cpu"]
    sections = [Section("ratios", "Beside the peers", _overview(areas, peers))]
    sections += [Section(_id(name), name, _area(rows, peers, document["areas"][name])) for name, rows in areas.items()]
    sections.append(Section("machine", "Machine and peers", _circumstances(document)))
    return page.render_page(
        title=f"Benchmarks, {processor}",
        heading="Benchmarks",
        subtitle=f"{processor}, torch {machine['torch']}, {document['date']}",
        tiles=[_tile(name, entry, areas[name], peers) for name, entry in document["areas"].items()],
        notes=_notes(document),
        sections=sections,
        footer="A ratio says how many times better ours is than the peer, turn by turn; the median is shown. "
        "docs/performance.md explains the figures and how to repeat them.",
    )


def least_ratio(row: Row, peers: Sequence[str]) -> float | None:
    """The ratio to the best of the peers in a row; None without one."""
    return min((ratio for name, ratio in row.get("ratios", {}).items() if name in peers), default=None)


def _tile(name: str, entry: Mapping[str, Any], rows: Sequence[Row], peers: Sequence[str]) -> Tile:
    if entry["status"] == "failed":
        return Tile(name, "failed")
    ratios = [ratio for row in rows if _is_timed(row) and (ratio := least_ratio(row, peers)) is not None]
    if not ratios:
        return Tile(name, f"{len(rows)} rows", note="no peer")
    middle = statistics.median(ratios)
    note = f"median of {len(ratios)} against the best peer; least {min(ratios):.2f}"
    return Tile(name, f"{middle:.2f}×", middle, note)


def _notes(document: Mapping[str, Any]) -> list[str]:
    notes = []
    for name, entry in document["areas"].items():
        if entry["status"] == "failed":
            notes.append(f"{name} failed: {entry['error'].strip().splitlines()[-1]}")
        if entry["left_out"]:
            notes.append(f"{name}: no time was left for {', '.join(entry['left_out'])}")
    failed = sum("error" in row for row in document["rows"])
    notes += [f"{failed} rows could not be measured; their areas say why."] if failed else []
    notes += [f"{name} is {found}" for name, found in document["peers"].items() if found.startswith(_ABSENT)]
    load, cores = document["machine"].get("load_before"), document["machine"].get("cores") or 1
    if load is not None and load > _BUSY * cores:
        notes.append(f"Other work was on the machine (load {load:.1f} on {cores} cores): trust ratios, not seconds.")
    if document["is_quick"]:
        notes.append("Made with --quick: it shows that everything runs, not how fast.")
    return notes


def _overview(areas: Mapping[str, Sequence[Row]], peers: Sequence[str]) -> Markup:
    """One chart for each area and peer: how many times faster, of every piece of work."""
    charts = []
    for name, rows in areas.items():
        for peer in peers:
            ratios: dict[str, list[float]] = {}
            for row in rows:
                if _is_timed(row) and peer in row["ratios"]:
                    ratios.setdefault(_label(row), []).append(row["ratios"][peer])
            bars = [(label, statistics.median(values)) for label, values in ratios.items()]
            if bars:
                title = f"{name}: how many times faster than {peer}"
                limit = _LONGEST * statistics.median(value for _, value in bars)  # one giant would flatten the others
                unit = "times, the median of the cases; 1 is as fast"
                charts.append(bar_chart(title, bars[:_MOST_BARS], x_label=unit, limit=max(limit, 2.0)))
    return page.charts(charts)


def _is_timed(row: Row) -> bool:
    """Whether a row compares speeds; memory has rows of its own."""
    return "ratios" in row and row["clock"] != "none"


def _label(row: Row) -> str:
    return row["name"] if row["threads"] is None else f"{row['name']}, {row['threads']} thr."


def _area(rows: Sequence[Row], peers: Sequence[str], entry: Mapping[str, Any]) -> Markup:
    measured, failed = [row for row in rows if "results" in row], [row for row in rows if "error" in row]
    parts = [page.charts(_curves(measured)), _growth(entry.get("fits", ())), _table(measured, peers), _stages(measured)]
    if failed:
        lines = [[row["name"], row["case"], row["error"]] for row in failed]
        parts.append(page.table(["could not be measured", "case", "why"], lines, words=True))
    return Markup("").join(parts)


def _table(rows: Sequence[Row], peers: Sequence[str]) -> Markup:
    """All rows: medians of every contender, ratios to them, memory where it was measured."""
    if not rows:
        return Markup("")
    found = dict.fromkeys(name for row in rows for name in row["results"] if name != OURS)
    others = sorted(found, key=lambda name: (name not in peers, list(found).index(name)))
    with_memory = [
        name for name in (OURS, *others) if any("peak_memory_mib" in row["results"].get(name, {}) for row in rows)
    ]
    head = ["what", "threads", "unit", OURS, "± %"]
    head += [word for name in others for word in (name, f"÷ {name}")] + [f"MiB {name}" for name in with_memory]
    lines = []
    for row in rows:
        results = row["results"]
        line = [f"{row['name']}: {row['case']}", row["threads"] or "", row["unit"]]
        line += [results[OURS]["median"], _spread(results[OURS]["samples"])] if OURS in results else ["", ""]
        for name in others:
            line += [results[name]["median"], row.get("ratios", {}).get(name, "")] if name in results else ["", ""]
        line += [results.get(name, {}).get("peak_memory_mib", "") for name in with_memory]
        lines.append(line)
    caption = "Medians; ± half the distance of ours' quartiles; ÷ how many times better ours is, turn by turn"
    return page.table(head, lines, caption=caption)


def _spread(samples: Sequence[float]) -> float | str:
    if len(samples) < 2:
        return ""
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return round(50 * (high - low) / middle, 1) if middle else ""


def _stages(rows: Sequence[Row]) -> Markup:
    """The stages of a step, one line a contender."""
    parts = []
    for row in rows:
        stages = row.get("stages_ms") or {}
        names = list(dict.fromkeys(name for figures in stages.values() for name in figures))
        if names:
            lines = [[who, *(figures.get(name, "") for name in names)] for who, figures in stages.items()]
            parts.append(page.table(["ms", *names], lines, caption=f"Stages: {row['name']}, {row['case']}"))
    return Markup("").join(parts)


def _curves(rows: Sequence[Row]) -> list[Markup]:
    """Charts of the rows with an amount: what a piece of work costs as it grows, beside growth in proportion."""
    groups: dict[tuple[str, int | None], list[Row]] = {}
    for row in rows:
        if "amount" in row:
            groups.setdefault((row["name"], row["threads"]), []).append(row)
    charts = []
    for (name, _), group in groups.items():
        group.sort(key=lambda row: row["amount"])
        series = []
        for contender in dict.fromkeys(name for row in group for name in row["results"]):
            there = [row for row in group if contender in row["results"]]
            values = [row["results"][contender]["median"] for row in there]
            series.append(Series(contender, [row["amount"] for row in there], values))
        last = next(line for line in series if line.name == OURS)
        straight = [last.ys[-1] * amount / last.xs[-1] for amount in last.xs]
        series.append(Series("in proportion", last.xs, straight, dashed=True))
        charts.append(line_chart(name, series, x_label=group[0].get("quantity", "amount"), y_label=group[0]["unit"]))
    return charts


def _growth(fits: Sequence[Mapping[str, Any]]) -> Markup:
    """The exponents that an area found, a line each piece of work."""
    if not fits:
        return Markup("")
    names = list(fits[0])
    lines = [["" if fit[name] is None else fit[name] for name in names] for fit in fits]
    return page.table(
        [name.replace("_", " ") for name in names], lines, caption="1 is growth in proportion, 2 quadratic"
    )


def _circumstances(document: Mapping[str, Any]) -> Markup:
    machine = [
        [name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)]
        for name, value in document["machine"].items()
    ]
    machine.append(["commit", document["commit"]])
    areas = [
        [name, entry["status"], entry["seconds"], f"benchmarks/{entry['command']}", entry.get("error", "")]
        for name, entry in document["areas"].items()
    ]
    return Markup("").join(
        (
            page.table(["machine", ""], machine, words=True),
            page.table(["peer", "version"], [list(pair) for pair in document["peers"].items()], words=True),
            page.table(["area", "", "seconds", "program", "error"], areas, words=True),
        )
    )


def _id(name: str) -> str:
    return f"area-{name}"
