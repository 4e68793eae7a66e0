"""What a run left in its OUTPUT_DIR, read for a report; what is missing or damaged is named, never fatal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.apps.manifest import MANIFEST_FILE
from maskrcnn_benchmark.tracking.evaluations import EVALUATIONS_FILE
from maskrcnn_benchmark.utils.plain_yaml import read_yaml

METRICS_FILE = "metrics.jsonl"
CONFIG_FILE = "config.yml"
EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Attributes:
        path: the folder.
        steps: lines of metrics.jsonl that belong to an iteration, in their order, each iteration once.
        totals: figures of the whole run.
        evaluations: [(iteration, {"bbox": {"AP": ...}, ...})] on the way.
        tests: evaluation.json of each data set, by name.
        config: config.yml as nested dicts.
        manifest: see ``apps.manifest``; empty where there is none.
        notes: what is missing or damaged, a sentence each.
    """

    path: Path
    steps: Sequence[Mapping[str, Any]]
    totals: Mapping[str, Any]
    evaluations: Sequence[tuple[int, Mapping[str, Mapping[str, float]]]]
    tests: Mapping[str, Mapping[str, Any]]
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: str | Path) -> RunFolder:
        """Read a folder.

        Raises:
            FileNotFoundError: there is no such folder, or nothing of a run in it.
        """
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"{path} does not exist; give the OUTPUT_DIR of a run")
        notes: list[str] = []
        lines = _read_lines(path / METRICS_FILE, notes)
        tests = {
            file.parent.name: content
            for file in sorted(path.glob(f"inference/*/{EVALUATION_FILE}"))
            if (content := _read_json(file, notes))
        }
        if not lines and not tests:
            raise FileNotFoundError(
                f"{path} holds no {METRICS_FILE} and no inference/*/{EVALUATION_FILE}: give the OUTPUT_DIR of a run of "
                "tools/train_net.py or tools/test_net.py"
            )
        steps = {line["iteration"]: line for line in lines if isinstance(line.get("iteration"), int)}
        totals: dict[str, Any] = {}
        for line in lines:
            if line.get("iteration") is None:
                totals.update(line)
        evaluations = [
            (line["iteration"], line["figures"])
            for line in _read_lines(path / EVALUATIONS_FILE, notes, needed=False)
            if "iteration" in line and "figures" in line
        ]
        return cls(
            path=path,
            steps=[steps[iteration] for iteration in sorted(steps)],
            totals=totals,
            evaluations=evaluations,
            tests=tests,
            config=_read_config(path / CONFIG_FILE, notes),
            manifest=_read_json(path / MANIFEST_FILE, notes),
            notes=notes,
        )

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """Iterations and values of one figure of the log, where it is a number."""
        pairs = [(line["iteration"], value) for line in self.steps if (value := as_number(line.get(name))) is not None]
        return [iteration for iteration, _ in pairs], [value for _, value in pairs]

    def loss_names(self) -> list[str]:
        """Of the sum, then of its parts."""
        names = {name for line in self.steps for name in line if name.startswith("loss")}
        return sorted(names, key=lambda name: (name != "loss", name))

    def setting(self, key: str, default: Any = None) -> Any:
        """A config value by its dotted key."""
        value: Any = self.config
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value

    def epoch_of(self, iteration: int) -> float | None:
        """Epochs done after an iteration, from the log's epoch numbers; None where it has none."""
        counted = [line for line in self.steps if line.get("epoch")]
        if not counted:
            return None
        last = counted[-1]
        return iteration * last["epoch"] / last["iteration"]


def as_number(value: Any) -> float | None:
    """A JSON value as a number, also one that is not finite; None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    return float(value) if value in ("nan", "inf", "-inf") else None


def _read_lines(path: Path, notes: list[str], *, needed: bool = True) -> list[dict[str, Any]]:
    if not path.is_file():
        if needed:
            notes.append(f"{path.name} is missing: there are no curves.")
        return []
    lines, damaged = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            damaged += 1
            continue
        if isinstance(line, dict):
            lines.append(line)
    if damaged:
        notes.append(f"{path.name} has {damaged} damaged line(s), which are left out.")
    return lines


def _read_json(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        notes.append(f"{path.name} is missing.")
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        notes.append(f"{path.name} is damaged ({error}).")
        return {}
    return content if isinstance(content, dict) else {}


def _read_config(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        notes.append(f"{path.name} is missing: the configuration is not shown.")
        return {}
    try:
        content = read_yaml(path, path.name)
    except ValueError as error:
        notes.append(f"{error}.")
        return {}
    return content if isinstance(content, dict) else {}


def is_finite(value: float | None) -> bool:
    """Whether there is a value, and a finite one."""
    return value is not None and math.isfinite(value)
