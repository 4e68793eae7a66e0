"""What an evaluation is asked for, whichever data set it is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ENGINES = ("fast", "pycocotools")


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of `evaluate`; each evaluation reads those that mean something to it.

    Attributes:
        box_only: the predictions are proposals with a field `objectness`; average recall is computed.
        iou_types: "bbox", "segm", "keypoints"; evaluated and printed in this order.
        expected_results: entries (task, metric, (mean, standard deviation)); see `check_expected_results`.
        expected_results_sigma_tol: accepted distance from the mean in standard deviations.
        oks_sigmas: of "keypoints", how far annotators differ on each, in units of the object's size; empty: COCO's for
            its 17.
        coco_engine: who computes COCO's figures of boxes and masks: "fast", or "pycocotools"; both give the same.
        num_resamples: resamples of the images for confidence intervals; 0 for none.
        dataset_name: for evaluation.json.

    Raises:
        ValueError: an unknown engine, or a negative number of resamples.
    """

    box_only: bool = False
    iou_types: Sequence[str] = ("bbox",)
    expected_results: Sequence[Sequence] = ()
    expected_results_sigma_tol: float = 4
    oks_sigmas: Sequence[float] = ()
    coco_engine: str = "fast"
    num_resamples: int = 200
    dataset_name: str = ""

    def __post_init__(self) -> None:
        if self.coco_engine not in ENGINES:
            raise ValueError(
                f"the engine of COCO's figures must be one of {', '.join(ENGINES)}, got {self.coco_engine!r}"
            )
        if self.num_resamples < 0:
            raise ValueError(f"the number of resamples must be 0 or more, got {self.num_resamples}")
