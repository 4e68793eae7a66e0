"""Training and inference as a benchmark runs them: step by step, with the parts that the programs use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.apps.benchmark_network import FlopCount, watch_network
from maskrcnn_benchmark.engine.losses import LossBuffer
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Preparation
from maskrcnn_benchmark.engine.seeding import seed_step
from maskrcnn_benchmark.engine.stages import StageRecorder
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.utils import comm


class _Steps:
    """What both kinds of run have.

    Attributes:
        precision: number format.
        recorder: while there is one, each step is recorded.
        pixels: of each step's padded batch.
        region_counts: of each watched step, the mask head's regions; numbers, or tensors on the device.
        flops: of one counted step, if counted.
    """

    def __init__(self, model: Any, precision: Precision, flops: FlopCount | None) -> None:
        self.model = model
        self.precision = precision
        self.flops = flops
        self.recorder: StageRecorder | None = None
        self.pixels: list[int] = []
        self.region_counts: list[int | Tensor] = []

    def _stage(self, name: str) -> contextlib.AbstractContextManager[Any]:
        return self.recorder.stage(name) if self.recorder is not None else contextlib.nullcontext()

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        if self.recorder is not None:
            self.recorder.begin_step()
        yield
        if self.recorder is not None:
            self.recorder.end_step()

    def unwatch(self) -> None:
        """Take the hooks off."""
        if self.recorder is not None:
            self.recorder.detach()
        self.recorder = None


class TrainingRun(_Steps):
    """The steps of engine.trainer's loop, one a call.

    Args:
        train_step: forward, backward, update.
        batches: prepared (images, targets, indices), as many as there will be steps.
        model: of the step, not wrapped.
        captured: whether its trunk is captured.
        seed: of the run.
        log_period: steps between two readings of the losses.
        flops: of one step, if counted.
    """

    def __init__(
        self,
        train_step: TrainStep,
        batches: Iterable[Any],
        model: nn.Module,
        *,
        captured: bool,
        seed: int,
        log_period: int,
        flops: FlopCount | None = None,
    ) -> None:
        super().__init__(model, train_step.precision, flops)
        self.train_step = train_step
        self.batches = iter(batches)
        self.captured = captured
        self.seed = seed
        self.log_period = log_period
        self.losses = LossBuffer()
        self.iteration = 0
        train_step.model.train()
        train_step.clear_gradients()

    def step(self) -> int:
        """Run one; gives the number of images.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        with self._recorded():
            with self._stage("data"):
                images, targets, indices = next(self.batches)
            self.iteration += 1
            seed_step(self.seed, self.iteration, comm.get_rank())
            self.losses.append(
                self.iteration, self.train_step(images, targets, iteration=self.iteration), list(indices)
            )
            if self.iteration % self.log_period == 0:
                self.losses.read()
        self.pixels.append(count_pixels(images))
        return len(indices)

    def watch(self, recorder: StageRecorder) -> None:
        """Record the stages of the steps from now on."""
        self.recorder = recorder
        watch_network(
            recorder,
            self.model,
            captured=self.captured,
            on_regions=lambda regions: self.region_counts.append((regions.labels > 0).sum()),
        )
        recorder.watch_backward(self.train_step.model, self.train_step.optimizer)


class InferenceRun(_Steps):
    """Detection on one batch a call, as engine.inference does it.

    Args:
        model: in evaluation mode.
        batches: of a loader, as many as there will be steps.
        prepare: brings images to the device.
        flops: of one step, if counted.

    Attributes:
        latencies: milliseconds of each step, from the batch in host memory to the detections there.
    """

    def __init__(
        self, model: nn.Module, batches: Iterable[Any], prepare: Preparation, *, flops: FlopCount | None = None
    ) -> None:
        super().__init__(model, prepare.precision, flops)
        self.batches = iter(batches)
        self.prepare = prepare
        self.latencies: list[float] = []

    @torch.no_grad()
    def step(self) -> int:
        """Run one; gives the number of images."""
        with self._recorded():
            with self._stage("data"):
                images, _, indices = next(self.batches)
                begin = time.perf_counter()
                images = self.prepare.images(images)
            outputs = self.detect(images)
            self.latencies.append((time.perf_counter() - begin) * 1e3)
        self.pixels.append(count_pixels(images))
        self.region_counts.append(sum(len(output) for output in outputs))
        return len(indices)

    def detect(self, images: Any) -> list[Any]:
        """Detections of prepared images, in host memory."""
        with self.precision.autocast():
            outputs = self.model(images)
        return [output.to("cpu") for output in outputs]

    def watch(self, recorder: StageRecorder) -> None:
        """Record the stages of the steps from now on."""
        self.recorder = recorder
        watch_network(recorder, self.model)


def count_pixels(images: Any) -> int:
    """Pixels of a padded batch."""
    n, _, height, width = images.tensors.shape
    return n * height * width
