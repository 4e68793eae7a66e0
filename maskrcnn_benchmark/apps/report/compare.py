"""Runs side by side: what tools/compare.py writes."""

from __future__ import annotations

import argparse
import datetime
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from maskrcnn_benchmark import __version__
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.options.compare import make_parser as make_parser
from maskrcnn_benchmark.apps.report import page
from maskrcnn_benchmark.apps.report.charts import Series, line_chart
from maskrcnn_benchmark.apps.report.page import Section
from maskrcnn_benchmark.apps.report.report import make_tiles
from maskrcnn_benchmark.apps.report.run_folder import RunFolder
from maskrcnn_benchmark.apps.report.settings import manifest_rows, shown
from maskrcnn_benchmark.apps.report.training import TASKS, evaluated
from maskrcnn_benchmark.checkpoint.files import write_atomically
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.utils.nested import flatten

# Which machine, when and where: what always differs and explains nothing.
_BORING = ("starts.", "end.", "trace.")

logger = logging.getLogger("maskrcnn_benchmark.report")


@user_errors()
def main(args: argparse.Namespace) -> None:
    """Run the program with parsed options of ``make_parser``."""
    setup_logger("maskrcnn_benchmark", "", 0)
    text = render_comparison([RunFolder.read(folder) for folder in args.runs])
    write_atomically(args.out, lambda file: file.write(text.encode("utf-8")))
    logger.info("The comparison is %s", Path(args.out))


def render_comparison(runs: Sequence[RunFolder]) -> str:
    """The page with figures, curves and differences of two or more runs.

    Raises:
        ValueError: there are fewer than two.
    """
    if len(runs) < 2:
        raise ValueError("give two or more folders of runs; for a single one there is tools/report.py")
    names = unique_names(runs)
    sections = [
        Section("figures", "Figures", _figures(runs, names)),
        Section("curves", "Curves", page.charts(_curves(runs, names))),
        Section("config", "Configuration", _differences([flatten(run.config) for run in runs], names)),
        Section("manifest", "Manifest", _differences([_manifest(run) for run in runs], names)),
    ]
    return page.render_page(
        title="Runs side by side",
        heading="Runs side by side",
        subtitle=" · ".join(names),
        tiles=[],
        notes=[f"{name}: {note}" for name, run in zip(names, runs, strict=True) for note in run.notes],
        sections=sections,
        footer=f"Written by maskrcnn_benchmark {__version__} on {datetime.date.today().isoformat()}.",
    )


def unique_names(runs: Sequence[RunFolder]) -> list[str]:
    """The folders' names; with those above them where names are equal."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({number})" for number, path in enumerate(paths, start=1)]


def _figures(runs: Sequence[RunFolder], names: Sequence[str]) -> Markup:
    tiles = [{tile.label: tile for tile in make_tiles(run)} for run in runs]
    labels = list(dict.fromkeys(label for own in tiles for label in own))
    rows = [(label, *(_cell(own.get(label)) for own in tiles)) for label in labels]
    return page.table(("", *names), rows)


def _cell(tile: page.Tile | None) -> Any:
    if tile is None:
        return "–"
    return f"{tile.value} {tile.note}".strip() if tile.note or tile.exact is None else tile.value


def _curves(runs: Sequence[RunFolder], names: Sequence[str]) -> list[Markup]:
    charts = []
    for task, word in TASKS.items():
        lines = []
        for name, run in zip(names, runs, strict=True):
            points = [(iteration, figures[task]["AP"]) for iteration, figures in evaluated(run) if task in figures]
            lines.append(Series(name, [x for x, _ in points], [ap for _, ap in points]))
        if any(line.xs for line in lines):
            charts.append(line_chart(f"Average precision of {word}", lines, x_label="iteration", y_label="AP"))
    losses = list(dict.fromkeys(loss for run in runs for loss in run.loss_names()))
    for figure, log_y in (*((loss, True) for loss in losses), ("learning_rate", False), ("time", False)):
        lines = [Series(name, *run.column(figure)) for name, run in zip(names, runs, strict=True)]
        if any(line.xs for line in lines):
            label = "seconds an iteration" if figure == "time" else figure.replace("_", " ")
            charts.append(line_chart(label.capitalize(), lines, x_label="iteration", y_label=label, log_y=log_y))
    return charts


def _manifest(run: RunFolder) -> dict[str, str]:
    return {key: value for key, value in manifest_rows(run) if not key.startswith(_BORING)}


def _differences(facts: Sequence[dict[str, Any]], names: Sequence[str]) -> Markup:
    keys = list(dict.fromkeys(key for own in facts for key in own))
    rows = [
        (key, *(shown(own.get(key, "–")) for own in facts))
        for key in keys
        if len({shown(own.get(key, "–")) for own in facts}) > 1
    ]
    if not rows:
        return Markup("<p>No difference.</p>")
    return page.table(("", *names), rows, words=True)
