"""The report of a run: what tools/report.py writes, and every training at its end."""

from __future__ import annotations

import argparse
import datetime
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from yacs.config import CfgNode

from maskrcnn_benchmark import __version__
from maskrcnn_benchmark.apps.errors import describe, user_errors
from maskrcnn_benchmark.apps.options.report import REPORT_FILE
from maskrcnn_benchmark.apps.options.report import make_parser as make_parser
from maskrcnn_benchmark.apps.report import page
from maskrcnn_benchmark.apps.report.answer import answer_sections
from maskrcnn_benchmark.apps.report.charts import bar_chart, number
from maskrcnn_benchmark.apps.report.data_sets import DataFacts, facts_of, open_data_sets
from maskrcnn_benchmark.apps.report.page import Section, Tile
from maskrcnn_benchmark.apps.report.pictures import picture_section
from maskrcnn_benchmark.apps.report.run_folder import RunFolder, is_finite
from maskrcnn_benchmark.apps.report.settings import build_run_config, config_difference, config_rows, manifest_rows
from maskrcnn_benchmark.apps.report.training import evaluated, progress_chart, training_charts
from maskrcnn_benchmark.checkpoint.files import write_atomically
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.logger import setup_logger

logger = logging.getLogger("maskrcnn_benchmark.report")


@user_errors()
def main(args: argparse.Namespace) -> None:
    """Run the program with parsed options of ``make_parser``."""
    setup_logger("maskrcnn_benchmark", "", 0)
    path = write_report(args.output_dir, args.out, with_data=not args.no_data)
    logger.info("The report is %s", path)


def make_report(cfg: CfgNode, output_dir: str) -> None:
    """Write the report at the end of a program if REPORT asks for it; nothing about it ends the program."""
    if not (cfg.REPORT and output_dir and comm.is_main_process()):
        return
    try:
        logger.info("The report is %s", write_report(output_dir))
    except Exception as error:
        logger.warning("There is no report (%s); tools/report.py %s tries again", describe(error), output_dir)
        logger.debug("traceback", exc_info=True)


def write_report(output_dir: str | Path, out: str | Path | None = None, *, with_data: bool = True) -> Path:
    """Write the report of a run.

    Args:
        output_dir: folder of the run.
        out: file to write; None: report.html in that folder.
        with_data: show pictures and statistics of the data sets that are on this machine.

    Returns:
        The file.

    Raises:
        FileNotFoundError: the folder holds no run.
        OSError: the file cannot be written.
    """
    run = RunFolder.read(output_dir)
    path = Path(out) if out is not None else run.path / REPORT_FILE
    text = render_report(run, with_data=with_data)
    write_atomically(str(path), lambda file: file.write(text.encode("utf-8")))
    return path


def render_report(run: RunFolder, *, with_data: bool) -> str:
    """The page of a run; see ``write_report``."""
    notes = list(run.notes)
    cfg = build_run_config(run) if with_data else None
    tested = list(run.tests) or list(run.setting("DATASETS.TEST", ()))
    names = list(dict.fromkeys([*run.setting("DATASETS.TRAIN", ()), *tested]))
    data_sets = open_data_sets(cfg, names, notes) if cfg is not None else {}
    sections = [
        *answer_sections(run, progress_chart(run)),
        picture_section(run, data_sets, notes),
        Section("training", "Training", page.charts(training_charts(run))),
        _data_section([facts_of(name, data_set) for name, data_set in data_sets.items()]),
        _config_section(run),
        Section("manifest", "Manifest", _facts(manifest_rows(run))),
    ]
    return page.render_page(
        title=f"{run.name}: Mask R-CNN report",
        heading=run.name,
        subtitle=_subtitle(run),
        tiles=make_tiles(run),
        notes=notes,
        sections=sections,
        footer=f"Written by maskrcnn_benchmark {__version__} on {datetime.date.today().isoformat()}.",
    )


def make_tiles(run: RunFolder) -> list[Tile]:
    """The figures at the head of the page: the answer, then the way there."""
    tiles = []
    points = evaluated(run)
    for task, label in (("bbox", "box AP"), ("segm", "mask AP"), ("keypoints", "keypoint AP")):
        test = next((test for test in run.tests.values() if "AP" in test.get("figures", {}).get(task, {})), None)
        if test is not None:
            value, note = test["figures"][task]["AP"], _interval(test.get("tasks", {}).get(task, {}))
        else:
            value = next((figures[task]["AP"] for _, figures in reversed(points) if task in figures), None)
            note = ""
        if is_finite(value):
            tiles.append(Tile(label, f"{value:.3f}", value, note))
    if run.steps:
        last = run.steps[-1]
        tiles.append(Tile("iterations", number(last["iteration"]), last["iteration"], _epochs(last)))
    speed = run.totals.get("train_perf_fps")
    if speed:
        tiles.append(Tile("training", number(speed), speed, "images/s"))
    seconds = run.totals.get("e2e_train_time")
    if seconds:
        tiles.append(Tile("training time", str(datetime.timedelta(seconds=round(seconds))), seconds))
    latency = run.totals.get("latency_avg")
    if latency:
        tiles.append(Tile("latency of a batch", f"{number(latency * 1000)} ms", latency, "mean"))
    _, memory = run.column("memory")
    if memory:
        tiles.append(Tile("peak memory", f"{number(round(max(memory)))} MiB", max(memory)))
    return tiles


def _interval(part: Mapping[str, Any]) -> str:
    """The confidence interval of AP, as a remark."""
    confidence = part.get("confidence")
    if not confidence:
        return ""
    interval = confidence["figures"]["AP"]
    return f"{interval['low']:.3f} to {interval['high']:.3f} ({confidence['level']:.0%})"


def _subtitle(run: RunFolder) -> str:
    tested = ", ".join(run.tests) or ", ".join(run.setting("DATASETS.TEST", ()))
    parts = [run.setting("MODEL.META_ARCHITECTURE"), run.setting("MODEL.BACKBONE.CONV_BODY")]
    model = " ".join(str(part) for part in parts if part)
    return " · ".join(part for part in (model, f"tested on {tested}" if tested else "") if part)


def _epochs(line: Mapping[str, Any]) -> str:
    return f"{line['epoch']} epochs" if line.get("epoch") else ""


def _data_section(facts: Sequence[DataFacts]) -> Section:
    parts = []
    for each in facts:
        counted = "" if each.num_counted == each.num_images else f", {each.num_counted:,} of them counted"
        parts.append(Markup("<h3>{}</h3><p>{:,} images{}.</p>").format(each.name, each.num_images, counted))
        classes = sorted(each.objects.items(), key=lambda item: -item[1])
        parts.append(
            page.charts(
                [
                    bar_chart("Objects by class", classes[:20], x_label="objects"),
                    bar_chart("Images by number of objects", each.per_image, x_label="images"),
                ]
            )
        )
        if len(classes) > 20:
            parts.append(page.more("All classes", page.table(("class", "objects"), classes)))
        parts.append(page.table(("size", "objects"), each.sizes))
        spreads = [("width", *each.widths), ("height", *each.heights)]
        parts.append(page.table(("pixels of the images", "least", "median", "most"), spreads))
    return Section("data", "Data", Markup("").join(parts))


def _config_section(run: RunFolder) -> Section:
    difference = config_difference(run)
    if difference is None:
        return Section("config", "Configuration", Markup(""))
    nearest = f"configs/{difference.nearest}" if difference.nearest else "the defaults"
    if difference.rows:
        sentence = f"The nearest published configuration is {nearest}. What differs from it:"
        body = page.table(("key", "published", "this run"), difference.rows, words=True)
    else:
        sentence, body = f"Every key is as in {nearest}.", Markup("")
    whole = page.more("Every key", page.table(("key", "value"), config_rows(run), words=True))
    return Section("config", "Configuration", Markup("<p>{}</p>{}{}").format(sentence, body, whole))


def _facts(rows: Sequence[tuple[str, str]]) -> Markup:
    return page.table(("fact", "value"), rows, words=True) if rows else Markup("")
