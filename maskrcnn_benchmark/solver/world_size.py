"""The schedule of a run whose number of processes changes.

SOLVER.IMS_PER_BATCH counts the images of all processes, so another number of processes that divides it changes nothing
but the last bits. One that does not gets the nearest batch that it can divide, and with it the linear scaling rule of
Goyal et al., *Accurate, Large Minibatch SGD* (2017): k times the images in a batch, k times the learning rate, and
1 / k of the iterations, so that the run sees the same number of images. Momentum needs no correction: PyTorch's SGD
keeps the learning rate out of it (section 3 there).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.solver.lr_scheduler import WarmupMultiStepLR

logger = logging.getLogger("maskrcnn_benchmark")


@dataclass(frozen=True)
class Schedule:
    """What of a schedule depends on the size of a batch.

    Args:
        images_per_batch: images of all processes in one iteration.
        base_lr: learning rate.
        warmup_slope: rate per update by which the warm-up rises, where it is given so; 0 where it is not.
        max_iter, checkpoint_period, test_period: iterations; a period of 0 means never.
        steps, warmup_iters: updates.
    """

    images_per_batch: int
    base_lr: float
    warmup_slope: float
    max_iter: int
    checkpoint_period: int
    test_period: int
    steps: tuple[int, ...]
    warmup_iters: int

    def scaled(self, images_per_batch: int) -> Schedule:
        """The schedule that sees the same images in batches of another size; itself where the size is the same.

        Raises:
            ValueError: two steps fall on one iteration.
        """
        if images_per_batch == self.images_per_batch:
            return self
        factor = images_per_batch / self.images_per_batch

        def iterations(value: float) -> int:
            return round(value * self.images_per_batch / images_per_batch)

        def period(value: int) -> int:
            return max(iterations(value), 1) if value else 0

        steps = tuple(map(iterations, self.steps))
        if len(set(steps)) < len(self.steps):
            raise ValueError(
                f"SOLVER.STEPS {self.steps}, counted in batches of {images_per_batch} instead of "
                f"{self.images_per_batch} images, are {steps}; set SOLVER.STEPS further apart"
            )
        return dataclasses.replace(
            self,
            images_per_batch=images_per_batch,
            base_lr=self.base_lr * factor,
            warmup_slope=self.warmup_slope * factor**2,  # the rate grows by the factor, and the time shrinks by it
            max_iter=period(self.max_iter),
            checkpoint_period=period(self.checkpoint_period),
            test_period=period(self.test_period),
            steps=steps,
            warmup_iters=iterations(self.warmup_iters),
        )


def nearest_batch(images_per_batch: int, world_size: int) -> int:
    """The positive multiple of the number of processes that is nearest to a batch size; of two, the smaller one."""
    below = images_per_batch // world_size * world_size
    if below == 0:
        return world_size
    return below if images_per_batch - below <= below + world_size - images_per_batch else below + world_size


def make_schedule_for_world(cfg: CfgNode, world_size: int) -> str:
    """With SOLVER.SCALE_TO_WORLD, write the schedule for this number of processes into the config.

    Args:
        cfg: reads and changes SOLVER, and TEST.IMS_PER_BATCH, on which no result depends.
        world_size: number of processes.

    Returns:
        What was changed, in one line for the log; "" for nothing.

    Raises:
        ValueError: see :meth:`Schedule.scaled`.
    """
    solver = cfg.SOLVER
    if not solver.SCALE_TO_WORLD:
        return ""
    cfg.TEST.IMS_PER_BATCH = nearest_batch(cfg.TEST.IMS_PER_BATCH, world_size)
    slope = solver.WARMUP_METHOD == "mlperf_linear"
    before = Schedule(
        images_per_batch=solver.IMS_PER_BATCH,
        base_lr=solver.BASE_LR,
        warmup_slope=solver.WARMUP_FACTOR if slope else 0.0,
        max_iter=solver.MAX_ITER,
        checkpoint_period=solver.CHECKPOINT_PERIOD,
        test_period=solver.TEST_PERIOD,
        steps=tuple(solver.STEPS),
        warmup_iters=solver.WARMUP_ITERS,
    )
    after = before.scaled(nearest_batch(before.images_per_batch, world_size))
    if after == before:
        return ""
    solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER = after.images_per_batch, after.base_lr, after.max_iter
    solver.CHECKPOINT_PERIOD, solver.TEST_PERIOD = after.checkpoint_period, after.test_period
    solver.STEPS, solver.WARMUP_ITERS = after.steps, after.warmup_iters
    if slope:
        solver.WARMUP_FACTOR = after.warmup_slope
    return (
        f"SOLVER.IMS_PER_BATCH {before.images_per_batch} cannot be divided among {world_size} process(es): "
        f"IMS_PER_BATCH {after.images_per_batch}, BASE_LR {after.base_lr:.6g}, MAX_ITER {after.max_iter}, "
        f"STEPS {after.steps}, WARMUP_ITERS {after.warmup_iters}, CHECKPOINT_PERIOD {after.checkpoint_period}, "
        "so that as many images are seen (SOLVER.SCALE_TO_WORLD)"
    )


@dataclass(frozen=True)
class Stretch:
    """Iterations that a run did one after another with one number of processes and one size of batches."""

    world_size: int
    images_per_batch: int
    iterations: int

    @property
    def images(self) -> int:
        """Images that the iterations saw."""
        return self.images_per_batch * self.iterations


@dataclass(frozen=True)
class Progress:
    """How far a run has come, over all changes of its number of processes.

    Args:
        world_size, images_per_batch: of the present stretch.
        first_iteration: iterations that were done, in the present counting, when the present stretch began.
        earlier: the stretches before it, in order.
    """

    world_size: int
    images_per_batch: int
    first_iteration: int = 0
    earlier: tuple[Stretch, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {**dataclasses.asdict(self), "earlier": [list(dataclasses.astuple(each)) for each in self.earlier]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """Take back what ``state_dict`` gave."""
        earlier = tuple(Stretch(*map(int, each)) for each in state["earlier"])
        first, world_size = int(state["first_iteration"]), int(state["world_size"])
        return cls(world_size, int(state["images_per_batch"]), first, earlier)

    def resumed(
        self, iteration: int, *, world_size: int, images_per_batch: int, by_images: bool, multiple: int = 1
    ) -> tuple[Progress, int]:
        """Go on after ``iteration`` with another number of processes or size of batches, or the same.

        Args:
            iteration: iterations done, in the counting of this object.
            world_size, images_per_batch: from now on.
            by_images: count iterations anew, so that as many batches of the new size hold the images seen; otherwise
                iterations stay iterations.
            multiple: a new count is a multiple of it (the micro-batches of an update).

        Returns:
            The progress of the run that goes on, and its number of iterations done.
        """
        if (world_size, images_per_batch) == (self.world_size, self.images_per_batch):
            return self, iteration
        done = iteration - self.first_iteration
        earlier = self.earlier
        if done:
            earlier = (*earlier, Stretch(self.world_size, self.images_per_batch, done))
        if by_images and images_per_batch != self.images_per_batch:
            # From the images themselves, so that errors of rounding do not add up.
            iteration = round(sum(each.images for each in earlier) / (images_per_batch * multiple)) * multiple
        return Progress(world_size, images_per_batch, iteration, earlier), iteration


def make_progress(cfg: CfgNode, arguments: dict[str, Any], scheduler: WarmupMultiStepLR, world_size: int) -> Progress:
    """The progress of a run that goes on from a checkpoint, or begins.

    Args:
        cfg: reads SOLVER.
        arguments: what a checkpoint held: ``iteration``, which is counted anew where SOLVER.SCALE_TO_WORLD says so, and
            ``progress``, which checkpoints of other programs lack: theirs went as this run does.
        scheduler: goes to the new count.
        world_size: number of processes now.
    """
    solver, iteration = cfg.SOLVER, arguments["iteration"]
    micro_batches = solver.ACCUMULATE_STEPS if solver.ACCUMULATE_GRAD else 1
    state = arguments.get("progress")
    saved = Progress.from_state(state) if state else Progress(world_size, solver.IMS_PER_BATCH)
    progress, arguments["iteration"] = saved.resumed(
        iteration,
        world_size=world_size,
        images_per_batch=solver.IMS_PER_BATCH,
        by_images=solver.SCALE_TO_WORLD,
        multiple=micro_batches,
    )
    if arguments["iteration"] != iteration:
        scheduler.load_state_dict({"last_epoch": arguments["iteration"] // micro_batches})
    if progress != saved:
        logger.warning(
            "%d process(es) with batches of %d images go on from %d with %d; iteration %d is now iteration %d",
            world_size,
            progress.images_per_batch,
            saved.world_size,
            saved.images_per_batch,
            iteration,
            arguments["iteration"],
        )
    arguments["progress"] = progress.state_dict()
    return progress
