"""result.yaml: the stages of a training with their figures, brought up to date with each of them."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from maskrcnn_benchmark.utils.files import write_atomically
from maskrcnn_benchmark.utils.plain_yaml import read_yaml
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode

logger = logging.getLogger("maskrcnn_benchmark.ymir")

MOST_STAGES = 11  # that the platform's own library keeps
ATTACHMENTS = "attachments"


@dataclass(frozen=True)
class Stage:
    """One model of a training.

    Args:
        stage_name: letters, digits and _.
        files: base names.
        figures: of the evaluation: mAP and mAR, or maskAP and boxAP, 0 to 1, and the counts tp, fp, fn.
        class_figures: average precision by class.
        timestamp: when it was made, seconds.
    """

    stage_name: str
    files: tuple[str, ...]
    figures: Mapping[str, float | int]
    class_figures: Mapping[str, float] = field(default_factory=dict)
    timestamp: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True)
class ResultForm:
    """How the stages of a training are told.

    Args:
        path: of result.yaml.
        models_dir: folder of the stages.
        has_stages: each stage has a folder; before protocol 1.0 there is one model, and its files lie side by side.
        metric: the figure that decides which stage is best.
        keep: how many of the best stages stay, and how many of the newest; negative for all.
        patterns: regular expressions, of which one must be found in a file's name for it to be listed; () for all.
        evaluate_config: how tp, fp and fn were counted.
    """

    path: str
    models_dir: str
    has_stages: bool
    metric: str
    keep: int
    patterns: tuple[str, ...] = ()
    evaluate_config: Mapping[str, float] = field(default_factory=dict)

    def folder_of(self, stage_name: str) -> Path:
        """Where the files of a stage go."""
        return Path(self.models_dir, stage_name) if self.has_stages else Path(self.models_dir)


def check_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """The regular expressions of ymir_saved_file_patterns.

    Raises:
        JobError: one is none.
    """
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise JobError(
                ReturnCode.CONFIG, f"ymir_saved_file_patterns: {pattern!r} is no regular expression ({error})"
            ) from error
    return tuple(patterns)


class TrainingResult:
    """The stages that stay, in the order in which they were made.

    Args:
        form: how they are told.
        state: file that keeps them whole, for a run that goes on.
        anew: the run begins from the start: stages of one before are removed.

    Raises:
        OSError: what is there cannot be read or removed.
    """

    def __init__(self, form: ResultForm, state: str, *, anew: bool) -> None:
        self.form = form
        self.state = state
        self.stages: list[Stage] = []
        self.figures: list[str] = []  # pictures among the attachments
        if os.path.isfile(state):
            entries = read_yaml(state, f"state file {state}")
            self.stages = [Stage(**{**entry, "files": tuple(entry["files"])}) for entry in entries]
        if anew:
            for path in (state, form.path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            before, self.stages = self.stages, []
            for stage in before:
                self._remove(stage)

    @property
    def best(self) -> Stage:
        """The stage with the highest figure; of several the newest."""
        return max(reversed(self.stages), key=lambda stage: stage.figures[self.form.metric])

    def add(self, stage: Stage) -> None:
        """One more stage, whose files are in its folder; those that need not stay are removed. Writes result.yaml.

        Raises:
            OSError: it cannot be written.
        """
        self.stages = [other for other in self.stages if other.stage_name != stage.stage_name] + [stage]
        kept = self._kept()
        dropped, self.stages = [s for s in self.stages if s not in kept], kept
        self.write()
        for other in dropped:
            self._remove(other)

    def add_file(self, stage_name: str, file: str) -> None:
        """One more file of a stage. Writes result.yaml."""
        self.stages = [
            replace(stage, files=(*dict.fromkeys((*stage.files, file)),)) if stage.stage_name == stage_name else stage
            for stage in self.stages
        ]
        self.write()

    def write(self) -> None:
        """Write result.yaml and the state.

        Raises:
            OSError: it cannot be written.
        """
        content = self._stages_form() if self.form.has_stages else self._model_form()
        _write_yaml(self.form.path, content)
        _write_yaml(self.state, [{**asdict(stage), "files": list(stage.files)} for stage in self.stages])

    def _kept(self) -> list[Stage]:
        chosen = list(self.stages)
        if self.form.keep >= 0:
            metric, keep = self.form.metric, max(self.form.keep, 1)
            newest_first = chosen[::-1]
            by_figure = sorted(newest_first, key=lambda stage: -stage.figures[metric])
            wanted = [*by_figure[:keep], *chosen[-keep:]]
            chosen = [stage for stage in chosen if stage in wanted]
        best = self.best
        while len(chosen) > MOST_STAGES:
            chosen.remove(next(stage for stage in chosen if stage is not best))
        return chosen

    def _remove(self, stage: Stage) -> None:
        folder = self.form.folder_of(stage.stage_name)
        if self.form.has_stages:
            shutil.rmtree(folder, ignore_errors=True)
            return
        shared = {file for other in self.stages if other is not stage for file in other.files}
        for file in set(stage.files) - shared:
            (folder / file).unlink(missing_ok=True)

    def _listed(self, stage: Stage) -> list[str]:
        patterns = self.form.patterns
        return [file for file in stage.files if not patterns or any(re.search(p, file) for p in patterns)]

    def _stages_form(self) -> dict[str, Any]:
        stages = {
            stage.stage_name: {
                "stage_name": stage.stage_name,
                "files": self._listed(stage),
                "timestamp": stage.timestamp,
                **stage.figures,
            }
            for stage in self.stages
        }
        best = self.best
        content = {
            "best_stage_name": best.stage_name,
            self.form.metric: best.figures[self.form.metric],
            "model_stages": stages,
            "evaluate_config": dict(self.form.evaluate_config),
        }
        if self.figures:
            content[ATTACHMENTS] = {"figures": list(self.figures)}
        return content

    def _model_form(self) -> dict[str, Any]:
        best = self.best
        # In the order in which the platform's own library writes them.
        return {
            "class_aps": dict(sorted(best.class_figures.items())),
            "map": best.figures[self.form.metric],
            "model": self._listed(best),
        }


def _write_yaml(path: str, content: Any) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_atomically(path, lambda file: file.write(text.encode()))
