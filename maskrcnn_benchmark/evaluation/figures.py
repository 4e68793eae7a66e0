"""Figures as all evaluations give them, and their comparison with expected ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

logger = logging.getLogger("maskrcnn_benchmark.inference")


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


def check_expected_results(results: Any, expected_results: Iterable[Sequence], sigma_tol: float = 4) -> bool:
    """Compare figures with expected ones and log PASS or FAIL for each; True when all pass.

    Args:
        results: the figures.
        expected_results: entries (task, metric, (mean, standard deviation)).
        sigma_tol: accepted distance from the mean in standard deviations.

    Raises:
        KeyError: an entry names a task or metric that was not evaluated.
    """
    passed = True
    for task, metric, (mean, std) in expected_results:
        if metric not in results.results.get(task, {}):
            known = [f"{t}/{m}" for t, figures in results.results.items() for m in figures]
            raise KeyError(f"TEST.EXPECTED_RESULTS names {task}/{metric}; evaluated: {', '.join(known)}")
        actual, low, high = results.results[task][metric], mean - sigma_tol * std, mean + sigma_tol * std
        within = low < actual < high
        text = f"{task} > {metric} sanity check (actual vs. expected): {actual:.3f} vs. mean={mean:.4f}, std={std:.4}, "
        text += f"range=({low:.4f}, {high:.4f})"
        if within:
            logger.info("PASS: %s", text)
        else:
            logger.error("FAIL: %s", text)
        passed = passed and within
    return passed
