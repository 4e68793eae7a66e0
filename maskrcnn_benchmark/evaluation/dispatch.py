"""One door for all evaluations: a data set says which figures are its own."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from .figures import check_expected_results
from .lists import CocoLists
from .results import Predictions, by_index
from .settings import EvaluationSettings

logger = logging.getLogger("maskrcnn_benchmark.inference")

# What a data set declares as `evaluation` -> module of this package and function; read when it is asked for.
_EVALUATORS = {
    "coco": ("coco", "evaluate_coco"),
    "voc": ("voc", "evaluate_voc"),
    "cityscapes": ("cityscapes", "evaluate_cityscapes"),
}


def evaluate(
    dataset: Any,
    predictions: Predictions,
    output_folder: str | os.PathLike[str] | None,
    *,
    settings: EvaluationSettings | None = None,
    results: CocoLists | None = None,
    **options: Any,
) -> tuple[Any, Mapping[str, list[dict]]]:
    """Evaluate predictions by the figures of the data set.

    Args:
        dataset: its attribute `evaluation` chooses: "coco" (also without the attribute), "voc", "cityscapes".
        predictions: BoxLists in network pixels, by data set index; without masks where there are `results`. When some
            images are missing, the figures are those of the others, and a warning says so.
        output_folder: receives the files of the evaluation, evaluation.json among them; None writes nothing.
        settings: see `EvaluationSettings`.
        results: the COCO results where they are made and written already; None makes and writes them.
        options: single fields of `EvaluationSettings`, where there are no `settings`.

    Returns:
        The figures, as `figures.results[task][name]`, and the result lists by IoU type.

    Raises:
        ValueError: there is no such evaluation.
        TypeError: an option that `EvaluationSettings` does not have.
    """
    kind = getattr(dataset, "evaluation", "coco")
    if kind not in _EVALUATORS:
        raise ValueError(
            f"{type(dataset).__name__} declares the evaluation {kind!r}; there are {', '.join(_EVALUATORS)}"
        )
    module, function = _EVALUATORS[kind]
    evaluator = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    settings = settings or EvaluationSettings(**options)
    predictions = by_index(predictions)
    num_images = len(dataset.id_to_img_map)
    if len(predictions) < num_images:
        logger.warning("Only %d of %d images have predictions; the others are left out", len(predictions), num_images)
    figures, results = evaluator(dataset, predictions, output_folder, settings, results)
    check_expected_results(figures, settings.expected_results, settings.expected_results_sigma_tol)
    return figures, results


def result_kinds(dataset: Any, settings: EvaluationSettings) -> tuple[str, ...]:
    """The COCO results that the evaluation of a data set takes, "bbox", "segm", "keypoints"; none of proposals."""
    if settings.box_only:
        return ()
    if getattr(dataset, "evaluation", "coco") == "voc":
        return ("bbox",)
    return tuple(settings.iou_types)
