"""The figures of an evaluation other than COCO's, as all evaluations give them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class Figures:
    """Figures by task: `figures.results["bbox"]["AP"]`. A figure without ground truth is -1.

    Args:
        results: figures by task and name; not-a-number stands for a figure without ground truth.
    """

    def __init__(self, results: Mapping[str, Mapping[str, float]]) -> None:
        self.results = {
            task: {name: -1.0 if np.isnan(value) else float(value) for name, value in figures.items()}
            for task, figures in results.items()
        }

    def __repr__(self) -> str:
        lines = []
        for task, figures in self.results.items():
            lines.append(f"Task: {task}")
            lines += [f"{name:<16}: {value:.4f}" for name, value in figures.items()]
        return "\n".join(lines)


def mean_of_defined(values: np.ndarray) -> float:
    """The mean without the entries that are not a number; not a number where none is left."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
