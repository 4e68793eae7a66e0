"""One door for all evaluations: a data set says which figures are its own."""

from __future__ import annotations

import importlib
import os
from typing import Any

from .results import Predictions

# What a data set declares as `evaluation` -> module of this package and function; read when it is asked for.
_EVALUATORS = {
    "coco": ("coco", "evaluate"),
    "voc": ("voc", "evaluate_voc"),
    "cityscapes": ("cityscapes", "evaluate_cityscapes"),
}


def evaluate(
    dataset: Any, predictions: Predictions, output_folder: str | os.PathLike[str] | None, **options: Any
) -> tuple[Any, dict[str, list[dict]]]:
    """Evaluate predictions by the figures of the data set.

    Args:
        dataset: its attribute `evaluation` chooses: "coco" (also without the attribute), "voc", "cityscapes".
        predictions: BoxLists in network pixels, by data set index.
        output_folder: receives the files of the evaluation; None writes nothing.
        options: those of `coco.evaluate`, which all evaluations take.

    Returns:
        The figures, as `figures.results[task][name]`, and the result lists by IoU type.

    Raises:
        ValueError: there is no such evaluation.
    """
    kind = getattr(dataset, "evaluation", "coco")
    if kind not in _EVALUATORS:
        raise ValueError(
            f"{type(dataset).__name__} declares the evaluation {kind!r}; there are {', '.join(_EVALUATORS)}"
        )
    module, function = _EVALUATORS[kind]
    evaluator = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    return evaluator(dataset, predictions, output_folder, **options)
