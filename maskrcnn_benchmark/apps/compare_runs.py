"""Whether two training runs are equal bit for bit, and if not, where they part and why: tools/compare_runs.py."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.apps.compare_causes import (
    EVALUATION,
    IMAGES,
    LENGTH,
    LOSSES,
    RATE,
    WEIGHTS_AT_START,
    facts_at,
    find_causes,
    why_without_cause,
)
from maskrcnn_benchmark.apps.compare_checkpoints import compare_checkpoints
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.manifest import MANIFEST_FILE, read_manifest
from maskrcnn_benchmark.apps.options.compare_runs import make_parser as make_parser
from maskrcnn_benchmark.tracking.evaluations import EVALUATIONS_FILE, EvaluationLog
from maskrcnn_benchmark.tracking.trace import TRACE_FILE, read_trace

EQUAL, DIFFERENT = 0, 1  # exit statuses; 2, that of a user's mistake, says that they cannot be compared

# Files of an evaluation, first what was detected, then what was made of it.
_RESULTS = ("bbox.json", "segm.json", "keypoints.json", "box_proposals.pth", "evaluation.json")
_SHOWN = 8  # causes


@dataclass(frozen=True)
class Parting:
    """The first point where two runs part.

    Args:
        stage: what differs there, one of the names in ``compare_causes``.
        iteration: where; None: not in an iteration.
        text: what is different, in a sentence.
    """

    stage: str
    iteration: int | None
    text: str


@dataclass
class RunFiles:
    """What a run left behind.

    Args:
        folder: its output folder.
        manifest: None where there is none.
        iterations: lines of the trace by iteration.
        weights: digests of the weights by iteration, 0 for those at the start.
        evaluations: figures of the evaluations on the way by iteration.
    """

    folder: str
    manifest: dict[str, Any] | None = None
    iterations: dict[int, dict[str, Any]] = field(default_factory=dict)
    weights: dict[int, str] = field(default_factory=dict)
    evaluations: Mapping[int, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str) -> RunFiles:
        """Read manifest and trace.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: the manifest, or the file of evaluations, is damaged.
        """
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"there is no folder {folder}; give the OUTPUT_DIR of two runs")
        run = cls(folder)
        if os.path.isfile(os.path.join(folder, MANIFEST_FILE)):
            run.manifest = read_manifest(folder)
        trace = os.path.join(folder, TRACE_FILE)
        for line in read_trace(trace) if os.path.isfile(trace) else ():
            if "weights" in line:
                run.weights[line["iteration"]] = line["weights"]
            else:
                run.iterations[line["iteration"]] = line
        run.evaluations = EvaluationLog(os.path.join(folder, EVALUATIONS_FILE), iteration=sys.maxsize).figures
        return run

    def describe(self) -> str:
        """One line: how far it went and how it ended."""
        last = max(self.iterations, default=0)
        if self.manifest is None:
            return f"{self.folder}: no {MANIFEST_FILE}, {last} iterations traced"
        end, resumed = self.manifest["end"], [start["iteration"] for start in self.manifest["starts"][1:]]
        parts = [f"{last} iterations", "running or killed" if end is None else end["reason"]]
        parts += [f"resumed at iteration {', '.join(map(str, resumed))}"] if resumed else []
        return f"{self.folder}: {'; '.join(parts)}"


@user_errors()
def main(args: argparse.Namespace) -> int:
    """Run the program; returns its exit status."""
    status, lines = compare(args.a, args.b)
    sys.stdout.write("\n".join(lines) + "\n")
    return status


def compare(a: str, b: str) -> tuple[int, list[str]]:
    """Compare two output folders.

    Returns:
        The exit status, and the lines of the report.

    Raises:
        OSError, ValueError: the folders hold nothing that both have, or something that cannot be read.
    """
    runs = RunFiles.read(a), RunFiles.read(b)
    lines = [f"{name}: {run.describe()}" for name, run in zip("AB", runs, strict=True)]
    parting = find_parting(*runs)
    checkpoints = compare_checkpoints(a, b)
    traced = bool(runs[0].iterations.keys() & runs[1].iterations.keys())
    if not traced and checkpoints is None:
        raise ValueError(f"{a} and {b} have neither traced iterations nor a checkpoint of one name in common")
    if parting is None and checkpoints is not None and checkpoints.is_different:
        parting = Parting(LOSSES, None, "only the checkpoints differ")
    if parting is None:
        parting = _compare_evaluations(*runs)
    lines.append("")
    if parting is None:
        seen = [f"{len(runs[0].iterations)} iterations"] if traced else []
        seen += [checkpoints.name] if checkpoints is not None else []
        lines.append(f"The runs are equal bit for bit ({', '.join(seen)}).")
    else:
        where = f" at iteration {parting.iteration}" if parting.iteration else ""
        lines.append(f"The runs part{where}: {parting.text}")
    if checkpoints is not None and checkpoints.is_different:
        lines.append(checkpoints.text)
    if parting is not None:
        lines += _explain(parting, *runs)
    return (EQUAL if parting is None else DIFFERENT), lines


def find_parting(a: RunFiles, b: RunFiles) -> Parting | None:
    """The first point where the traces of two runs part; None: they do not, as far as both go."""
    if 0 in a.weights and 0 in b.weights and a.weights[0] != b.weights[0]:
        return Parting(WEIGHTS_AT_START, None, "they begin with different weights")
    for iteration in sorted(a.iterations.keys() & b.iterations.keys()):
        first, second = a.iterations[iteration], b.iterations[iteration]
        if first["images"] != second["images"]:
            text = f"A takes the images {_listed(first['images'])}, B {_listed(second['images'])}"
            return Parting(IMAGES, iteration, text)
        if first["learning_rate"] != second["learning_rate"]:
            text = f"the learning rate is {first['learning_rate']} in A and {second['learning_rate']} in B"
            return Parting(RATE, iteration, text)
        if first["losses"] != second["losses"]:
            return Parting(LOSSES, iteration, _describe_losses(first["losses"], second["losses"]))
        weights = a.weights.get(iteration), b.weights.get(iteration)
        if None not in weights and weights[0] != weights[1]:
            return Parting(LOSSES, iteration, "the weights differ after it; all losses up to there are equal")
        figures = a.evaluations.get(iteration), b.evaluations.get(iteration)
        if None not in figures and repr(figures[0]) != repr(figures[1]):
            return Parting(EVALUATION, iteration, "the evaluation after it differs, of equal weights as far as known")
    ends = max(a.iterations, default=0), max(b.iterations, default=0)
    if ends[0] != ends[1] and all(ends):
        short = "A" if ends[0] < ends[1] else "B"
        text = f"{short} ends at iteration {min(ends)}, the other at {max(ends)}; up to there they are equal"
        return Parting(LENGTH, min(ends) + 1, text)
    return None


def _describe_losses(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    names = [name for name in (*a, *(b.keys() - a.keys())) if a.get(name) != b.get(name)]
    name = names[0]
    text = f"{name} is {a.get(name)} in A and {b.get(name)} in B"
    if isinstance(a.get(name), float) and isinstance(b.get(name), float):
        distance = abs(a[name] - b[name])
        text += f", {distance:.3g} apart"
        if a[name]:
            text += f" ({distance / abs(a[name]):.2g} of it)"
    return text + (f"; {', '.join(names[1:])} differ too" if names[1:] else "")


def _compare_evaluations(a: RunFiles, b: RunFiles) -> Parting | None:
    """Compare result files that both have, then the figures of the last evaluation."""
    for folder in sorted(Path(a.folder).glob("inference/*")):
        for path in (folder / name for name in _RESULTS):
            other = Path(b.folder, path.relative_to(a.folder))
            if path.is_file() and other.is_file() and path.read_bytes() != other.read_bytes():
                return Parting(EVALUATION, None, f"training is equal, but {path.relative_to(a.folder)} differs")
    figures = [(run.manifest or {}).get("end") or {} for run in (a, b)]
    first, second = (end.get("evaluation") or {} for end in figures)
    for task in first.keys() & second.keys():
        if first[task] != second[task]:
            return Parting(EVALUATION, None, f"results are equal, but the figures of {task} differ")
    return None


def _explain(parting: Parting, a: RunFiles, b: RunFiles) -> list[str]:
    if a.manifest is None or b.manifest is None:
        return [f"Why cannot be said: {MANIFEST_FILE} is missing."]
    facts = facts_at(a.manifest, parting.iteration), facts_at(b.manifest, parting.iteration)
    if parting.stage == LENGTH and not find_causes(LENGTH, facts)[0]:
        return []  # one was stopped, is still running or was killed, which its own line says
    causes, others = find_causes(parting.stage, facts)
    if not causes:
        lines = [f"Why: {why_without_cause(facts[0])}."]
    else:
        lines = ["Why (the likeliest first; fact: A | B):"]
        lines += [
            f"  {cause.fact}: {_short(cause.values[0])} | {_short(cause.values[1])}  ({cause.why})"
            for cause in causes[:_SHOWN]
        ]
        lines += [f"  and {len(causes) - _SHOWN} more"] if len(causes) > _SHOWN else []
    if others:
        names = ", ".join(cause.fact.removeprefix("config.values.") for cause in others if cause.why)
        lines += [f"Different too, but no explanation: {names}."] if names else []
    return lines


def _listed(items: Sequence[Any]) -> str:
    return ", ".join(map(str, items[:_SHOWN])) + (", ..." if len(items) > _SHOWN else "")


def _short(value: Any, width: int = 60) -> str:
    text = "not set" if value is None else str(value)
    if re.fullmatch(r"[0-9a-f]{32,64}", text):
        return f"{text[:12]}..."  # a digest
    return text if len(text) <= width else f"{text[: width - 3]}..."
