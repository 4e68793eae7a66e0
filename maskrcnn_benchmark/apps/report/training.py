"""The part of a report that is about training: curves of the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from maskrcnn_benchmark.apps.report.charts import Series, line_chart
from maskrcnn_benchmark.apps.report.run_folder import RunFolder

TASKS = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
_PUBLISHED = Path(__file__).with_name("mlperf_curves.json")


def training_charts(run: RunFolder) -> list[Markup]:
    """Losses, learning rate, throughput, share of waiting for data, and memory, against the iteration."""
    if not run.steps:
        return []
    losses = [Series(name, *run.column(name)) for name in run.loss_names()]
    charts = [
        line_chart("Losses", losses, x_label="iteration", y_label="loss", log_y=True),
        line_chart(
            "Learning rate",
            [Series("learning rate", *run.column("learning_rate"))],
            x_label="iteration",
            y_label="learning rate",
        ),
    ]
    iterations, seconds = run.column("time")
    batch = run.setting("SOLVER.IMS_PER_BATCH")
    if batch and iterations:
        speed = [batch / each if each > 0 else float("nan") for each in seconds]
        charts.append(
            line_chart(
                "Throughput", [Series("images/s", iterations, speed)], x_label="iteration", y_label="images a second"
            )
        )
    _, waits = run.column("data")
    if iterations and len(waits) == len(seconds):
        computing = [time - wait for time, wait in zip(seconds, waits, strict=True)]
        stages = [Series("network and update", iterations, computing), Series("waiting for data", iterations, waits)]
        charts.append(
            line_chart("Where an iteration's time goes", stages, x_label="iteration", y_label="seconds an iteration")
        )
    charts.append(
        line_chart("Peak memory", [Series("memory", *run.column("memory"))], x_label="iteration", y_label="MiB")
    )
    return charts


def progress_chart(run: RunFolder) -> Markup | None:
    """AP after each evaluation; on COCO against the epoch, beside public curves; None for fewer than two."""
    points = evaluated(run)
    if len(points) < 2:
        return None
    epochs = [run.epoch_of(iteration) for iteration, _ in points]
    published = _published(run, [task for task in TASKS if any(task in figures for _, figures in points)])
    by_epoch = bool(published) and None not in epochs
    xs = [float(epoch or 0) for epoch in epochs] if by_epoch else [float(iteration) for iteration, _ in points]
    lines = []
    for colour, (task, word) in enumerate(TASKS.items(), start=1):
        known = [(x, figures[task]["AP"]) for x, (_, figures) in zip(xs, points, strict=True) if task in figures]
        if known:
            lines.append(Series(f"{word}, this run", [x for x, _ in known], [ap for _, ap in known], colour=colour))
    label = "epoch" if by_epoch else "iteration"
    return line_chart(
        "Average precision over time", [*lines, *(published if by_epoch else [])], x_label=label, y_label="AP"
    )


def evaluated(run: RunFolder) -> list[tuple[int, Mapping[str, Mapping[str, float]]]]:
    """(iteration, figures) of the evaluations on the way and, where the log has it, of the last one."""
    points = list(run.evaluations)
    last = run.steps[-1]["iteration"] if run.steps else None
    final = {
        task: {"AP": float(run.totals[name])}
        for task, name in (("bbox", "BBOX_mAP"), ("segm", "MASK_mAP"))
        if isinstance(run.totals.get(name), (int, float))
    }
    if last is not None and final and (not points or points[-1][0] < last):
        points.append((last, final))
    return points


def _published(run: RunFolder, tasks: list[str]) -> list[Series]:
    """The public curves, where the run was tested on all of COCO's validation images."""
    if not any(is_coco(name, run.tests.get(name, {})) for name in run.setting("DATASETS.TEST", ())):
        return []
    curves = json.loads(_PUBLISHED.read_text(encoding="utf-8"))
    return [
        Series(f"{TASKS[task]}, {curve['name']}", curve["epochs"], curve[task], dashed=True, colour=colour)
        for curve, colours in zip(curves, ((3, 4), (5, 6)), strict=True)
        for task, colour in zip(("bbox", "segm"), colours, strict=True)
        if task in tasks
    ]


def is_coco(name: str, evaluation: Mapping[str, Any]) -> bool:
    """Whether a data set is COCO's 5,000 validation images under one of its names."""
    names = ("coco_2014_minival", "coco_2017_val")
    return name in names and evaluation.get("num_images", 5000) >= 4900
