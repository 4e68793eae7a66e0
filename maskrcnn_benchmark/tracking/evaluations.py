"""The figures of the evaluations on the way, kept so that a resumed run neither loses nor repeats one."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping

from maskrcnn_benchmark.checkpoint.files import write_atomically

Figures = Mapping[str, Mapping[str, float]]

EVALUATIONS_FILE = "evaluations.jsonl"
logger = logging.getLogger("maskrcnn_benchmark.trainer")


class EvaluationLog:
    """A file with one line an evaluation: ``{"iteration": 5000, "figures": {"bbox": {"AP": 0.31, ...}, ...}}``.

    Args:
        path: the file; an existing one is continued. None keeps nothing on disk.
        iteration: iterations done before; lines of later ones go, since training does them again.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | None, *, iteration: int = 0) -> None:
        self.path = path
        self.figures: dict[int, Figures] = {}
        if path is not None and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
            self.figures = {line["iteration"]: line["figures"] for line in lines if line["iteration"] <= iteration}

    def find(self, iteration: int) -> Figures | None:
        """The figures of the evaluation after an iteration, if there was one."""
        return self.figures.get(iteration)

    def add(self, iteration: int, figures: Figures) -> None:
        """Keep the figures of an evaluation that has just ended; they are on the disk when this returns."""
        plain = {task: {name: float(value) for name, value in part.items()} for task, part in figures.items()}
        self.figures[iteration] = plain
        if self.path is None:
            return
        lines = [json.dumps({"iteration": each, "figures": self.figures[each]}) for each in sorted(self.figures)]
        try:
            write_atomically(self.path, lambda file: file.write("".join(f"{line}\n" for line in lines).encode()))
        except OSError as error:
            logger.error("%s cannot be written (%s); training goes on", self.path, error.strerror or error)
