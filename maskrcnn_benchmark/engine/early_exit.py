"""Evaluate while training, and stop when the model is good enough."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark.trainer")


@dataclass(frozen=True)
class EarlyExit:
    """The aim of a run.

    Args:
        min_bbox_map: box AP to reach, 0 to 1.
        min_segm_map: mask AP to reach; not asked of a model without masks.
    """

    min_bbox_map: float
    min_segm_map: float

    def reached(self, results: Mapping[str, Mapping[str, float]]) -> bool:
        """Whether figures such as {"bbox": {"AP": 0.4}, "segm": {"AP": 0.3}} meet the aim."""
        aims = {"bbox": self.min_bbox_map, "segm": self.min_segm_map}
        measured = [task for task in aims if task in results]
        return bool(measured) and all(results[task]["AP"] >= aims[task] for task in measured)


class PerEpochEvaluation:
    """End-of-iteration callback of ``do_train``: evaluates after each epoch and says when to stop.

    Args:
        evaluate: runs on every process and gives figures as ``EarlyExit.reached`` takes them on rank 0.
        iterations_per_epoch: iterations from one evaluation to the next.
        early_exit: the aim.
    """

    def __init__(
        self,
        evaluate: Callable[[int], Mapping[str, Mapping[str, float]]],
        iterations_per_epoch: int,
        early_exit: EarlyExit,
    ) -> None:
        self.evaluate = evaluate
        self.iterations_per_epoch = iterations_per_epoch
        self.early_exit = early_exit

    def is_due(self, iteration: int) -> bool:
        """Whether an epoch has just ended."""
        return iteration % self.iterations_per_epoch == 0

    def __call__(self, iteration: int) -> bool:
        """Evaluate when an epoch has just ended; True on every process when the aim is reached."""
        if not self.is_due(iteration):
            return False
        logger.info("Starting evaluation after iteration %d", iteration)
        results = self.evaluate(iteration)
        reached = comm.broadcast(comm.is_main_process() and self.early_exit.reached(results))
        if reached:
            logger.info("Target mAP reached, exiting...")
        return reached


class PeriodicEvaluation:
    """End-of-iteration callback of ``do_train``: evaluates every so many iterations, and training goes on.

    Args:
        evaluate: runs on every process; reports by itself.
        period: iterations from one evaluation to the next.
        per_epoch: evaluates after epochs too, and may stop the training; where both are due, it alone evaluates.
        poll: called after every iteration; reports an evaluation that went on meanwhile.
    """

    def __init__(
        self,
        evaluate: Callable[[int], object],
        period: int,
        per_epoch: PerEpochEvaluation | None = None,
        *,
        poll: Callable[[], None] | None = None,
    ) -> None:
        self.evaluate = evaluate
        self.poll = poll
        self.period = period
        self.per_epoch = per_epoch

    def is_due(self, iteration: int) -> bool:
        """Whether it is time."""
        return iteration % self.period == 0 or (self.per_epoch is not None and self.per_epoch.is_due(iteration))

    def __call__(self, iteration: int) -> bool:
        """Evaluate when it is time; True on every process when training is to stop."""
        if self.poll is not None:
            self.poll()
        if self.per_epoch is not None and self.per_epoch.is_due(iteration):
            return self.per_epoch(iteration)
        if iteration % self.period == 0:
            logger.info("Starting evaluation after iteration %d", iteration)
            self.evaluate(iteration)
        return False
