"""The part of a report that is about the answer: figures, classes, curves, mistakes, confusions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from maskrcnn_benchmark.apps.report import page
from maskrcnn_benchmark.apps.report.charts import Series, bar_chart, line_chart
from maskrcnn_benchmark.apps.report.page import Section
from maskrcnn_benchmark.apps.report.run_folder import RunFolder
from maskrcnn_benchmark.apps.report.training import TASKS

MOST_BARS = 30
MOST_CURVES = 6
MOST_MATRIX_LABELS = 25
MOST_CONFUSIONS = 30
# Kinds of mistakes of Bolya et al. (2020), in words.
MISTAKES = {
    "Cls": "wrong class",
    "Loc": "wrong place",
    "Both": "wrong class and place",
    "Dupe": "found twice",
    "Bkg": "background",
    "Miss": "missed",
}
_CLASS_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "num_objects", "num_detections")
_WORDS = {"num_objects": "objects", "num_detections": "detections"}
_CURVES = ("0.50", "0.75", "0.95")


def answer_sections(run: RunFolder, progress: Markup | None) -> list[Section]:
    """The result of each data set that was tested, with AP over time before them.

    Args:
        run: its ``tests`` are shown; docs/evaluation.md has their layout.
        progress: the chart of AP over time, if there is one.
    """
    parts = [page.charts([progress])] if progress else []
    for name, test in run.tests.items():
        parts.append(Markup("<h3>{}: {:,} images</h3>").format(name, test.get("num_images", 0)))
        parts.append(_figures(test))
        for task, part in test.get("tasks", {}).items():
            parts.append(_task(task, part))
    return [Section("result", "Result", Markup("").join(parts))]


def _figures(test: Mapping[str, Any]) -> Markup:
    """All figures of the whole; -1 means that there is nothing to measure."""
    figures = {task: own for task, own in test.get("figures", {}).items() if own}
    names = list(dict.fromkeys(name for own in figures.values() for name in own))
    kept = names if len(names) <= MOST_BARS else [name for name in names if "-" not in name]  # not those of classes
    rows = [(name, *(_defined(own.get(name)) for own in figures.values())) for name in kept]
    return page.table(("figure", *(TASKS.get(task, task) for task in figures)), rows) if rows else Markup("")


def _task(task: str, part: Mapping[str, Any]) -> Markup:
    word = TASKS.get(task, task)
    charts = [_class_bars(word, part), *_curves(word, part), _mistakes(word, part)]
    body = [page.charts([chart for chart in charts if chart])]
    if part.get("sizes"):
        names = ("AP", "AP50", "AP75", "AR", "num_objects")
        rows = [(entry["name"], *(_defined(entry.get(name)) for name in names)) for entry in part["sizes"]]
        body.append(
            page.table(("size", *names[:-1], "objects"), rows, caption=f"{word.capitalize()} by size of the objects")
        )
    classes = part.get("classes", [])
    if classes:
        columns = [name for name in _CLASS_FIGURES if name in classes[0]] or [
            name for name in classes[0] if name not in ("id", "name")
        ]
        rows = [(entry["name"], *(_defined(entry.get(name)) for name in columns)) for entry in classes]
        body.append(
            page.more(
                f"{word.capitalize()} by class",
                page.table(("class", *(_WORDS.get(name, name) for name in columns)), rows),
            )
        )
    confusion = _confusion(word, part)
    return Markup("<h4>{}</h4>").format(word.capitalize()) + Markup("").join([*body, confusion])


def _class_bars(word: str, part: Mapping[str, Any]) -> Markup | None:
    """AP of the classes, best first; of many the best and worst."""
    found = [(entry["name"], entry["AP"]) for entry in part.get("classes", []) if entry.get("AP", -1) >= 0]
    if not found:
        return None
    found.sort(key=lambda item: -item[1])
    title = f"AP of {word} by class"
    if len(found) > MOST_BARS:
        found = [*found[: MOST_BARS // 2], *found[-(MOST_BARS // 2) :]]
        title += f", the {MOST_BARS // 2} best and worst"
    return bar_chart(title, found, x_label="AP", limit=1.0)


def _curves(word: str, part: Mapping[str, Any]) -> list[Markup]:
    """Precision against recall, over the classes at some IoU thresholds, and of some classes at IoU 0.5."""
    curves = part.get("precision_recall")
    if not curves or not curves.get("mean"):
        return []
    recall, unit = curves["recall"], (0.0, 1.0)
    lines = [Series(f"IoU {iou}", recall, curves["mean"][iou]) for iou in _CURVES if iou in curves["mean"]]
    charts = [
        line_chart(
            f"Precision and recall of {word}", lines, x_label="recall", y_label="precision", y_range=unit, x_range=unit
        )
    ]
    names = {str(entry["id"]): entry["name"] for entry in part.get("classes", [])}
    own = curves.get("classes", {})
    most_objects = sorted(
        (entry for entry in part.get("classes", []) if str(entry.get("id")) in own),
        key=lambda entry: -entry.get("num_objects", 0),
    )[:MOST_CURVES]
    if len(own) > 1:
        lines = [Series(names[str(entry["id"])], recall, own[str(entry["id"])]["0.50"]) for entry in most_objects]
        title = f"Classes of {word} at IoU 0.50" + (", those with most objects" if len(own) > MOST_CURVES else "")
        charts.append(line_chart(title, lines, x_label="recall", y_label="precision", y_range=unit, x_range=unit))
    return charts


def _mistakes(word: str, part: Mapping[str, Any]) -> Markup | None:
    errors = part.get("errors")
    if not errors:
        return None
    bars = [
        (f"{meaning} ({errors['counts'].get(kind, 0):,})", errors["dAP"][kind])
        for kind, meaning in MISTAKES.items()
        if kind in errors["dAP"]
    ]
    return bar_chart(f"What mistakes with {word} cost (and how many there are)", bars, x_label="AP50 lost")


def _confusion(word: str, part: Mapping[str, Any]) -> Markup:
    """Annotated classes by what was found in them; a matrix of few classes, the largest confusions of many."""
    confusion = part.get("confusion")
    if not confusion or not confusion["entries"]:
        return Markup("")
    names = {entry["id"]: entry["name"] for entry in part.get("classes", [])}
    labels = [names.get(label, str(label)) for label in confusion["labels"]]
    caption = (
        f"What was found (columns) in {word} of each class (rows): detections from a score of "
        f"{confusion['score_threshold']} on, at IoU {confusion['iou_threshold']}"
    )
    if len(labels) > MOST_MATRIX_LABELS:
        wrong = [(row, column, count) for row, column, count in confusion["entries"] if row != column]
        rows = [(labels[row], labels[column], count) for row, column, count in wrong[:MOST_CONFUSIONS]]
        return page.more(caption, page.table(("annotated", "found", "times"), rows))
    counts = {(row, column): count for row, column, count in confusion["entries"]}
    rows = []
    for row, name in enumerate(labels):
        own = [counts.get((row, column), 0) for column in range(len(labels))]
        total = max(sum(own), 1)
        rows.append({"name": name, "cells": [{"count": count, "share": round(count / total, 3)} for count in own]})
    return page.matrix(labels, rows, caption=caption)


def _defined(value: Any) -> Any:
    return "–" if value is None or value == -1 else value
