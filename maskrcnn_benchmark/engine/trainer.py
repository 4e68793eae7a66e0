"""The training loop."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from maskrcnn_benchmark.data.broken_images import report_broken_images
from maskrcnn_benchmark.engine.breaks import Breaks
from maskrcnn_benchmark.engine.failures import FailureOptions, FailureWatch
from maskrcnn_benchmark.engine.losses import LossBuffer
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Prefetcher, Preparation
from maskrcnn_benchmark.engine.progress import TrainProgress
from maskrcnn_benchmark.engine.saver import Saver
from maskrcnn_benchmark.engine.seeding import seed_step
from maskrcnn_benchmark.engine.signals import StopSignals
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.engine.time_limit import TimeLimit
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.tracking import MetricSink
from maskrcnn_benchmark.tracking.trace import Trace
from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark.trainer")


@dataclass(frozen=True)
class TrainSummary:
    """What a call of ``do_train`` did.

    Args:
        iterations: iterations done in this call.
        images: images seen by all processes in this call.
        seconds: wall time of the loop.
        stopped_early: whether the end-of-iteration callback ended it.
    """

    iterations: int
    images: int
    seconds: float
    stopped_early: bool

    @property
    def images_per_second(self) -> float:
        """Throughput over all processes, evaluation and saving included; 0 when nothing was done."""
        return self.images / self.seconds if self.images else 0.0


def do_train(
    model: nn.Module,
    data_loader: Iterable,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    checkpointer: Any,
    device: torch.device | str,
    checkpoint_period: int,
    arguments: dict[str, Any],
    *,
    precision: Precision | None = None,
    normalize: Callable[[ImageList], ImageList] | None = None,
    prefetch: bool = True,
    accumulate_steps: int = 1,
    max_grad_norm: float = 0.0,
    log_period: int = 20,
    seed: int = 0,
    iterations_per_epoch: int = 0,
    sink: MetricSink | None = None,
    trace: Trace | None = None,
    failures: FailureOptions | None = None,
    per_iter_end_callback_fn: Callable[[int], bool] | None = None,
    evaluates_after: Callable[[int], bool] | None = None,
    save_in_background: bool = False,
    before_save: Callable[[], object] | None = None,
    stop: StopSignals | None = None,
    time_limit: TimeLimit | None = None,
) -> TrainSummary:
    """Train until the loader ends.

    Everything random in an iteration follows from (seed, iteration, rank); with the checkpoint's weights, momentum,
    schedule, loss scale and meters a resumed run therefore equals the uninterrupted one bit for bit.

    Args:
        model: gives a dict of losses for (images, targets); on the device already.
        data_loader: yields (ImageList, targets, data set indices); its length is the last iteration of the whole run,
            its first batch the one after ``arguments["iteration"]``.
        optimizer, scheduler: step once an update.
        checkpointer: see Saver; None saves nothing.
        device: where the model is.
        checkpoint_period: iterations between checkpoints, moved on to the next update under accumulation.
        arguments: ``iteration`` (iterations done so far, updated here) and what ``checkpointer.load`` gave.
        precision: number format; default float32.
        normalize: pixels to the network's input, where the loader gives pixels; see Preparation.
        prefetch: on a GPU, prepare each batch while the step before computes.
        accumulate_steps: micro-batches an update; an iteration is one micro-batch.
        max_grad_norm: see TrainStep.
        log_period: iterations between two readings of the losses.
        seed: of the run.
        iterations_per_epoch: for the epoch number beside each figure; 0 for none.
        sink: receives the figures of each log line.
        trace: keeps what each iteration saw and gave.
        failures: what is done about losses that are not finite, and what is kept of them; None: they end the run.
        per_iter_end_callback_fn: called as ``f(iteration=...)`` after each iteration; True ends the training.
        evaluates_after: whether the callback takes its time after an iteration. If so it is called first thing for the
            iteration that a resumed run begins with, since the interruption may have come before or within it.
        save_in_background, before_save: see Saver.
        stop: asked after each iteration; when it says so, the run is saved after the next update.
        time_limit: may let an earlier iteration be the last one; None: there is time.

    Raises:
        Interrupted: ``stop`` ended the run.
        FloatingPointError: a loss or a gradient is not finite. The weights are then those from before that iteration
            (on a GPU with a fused optimiser only), and no checkpoint is written after it.
        MemoryError: memory ran out; batch, remedy and last checkpoint are named.
        LoaderError: a worker of the loader died or does not answer.
    """
    device = torch.device(device)
    precision = precision or Precision(device.type)
    dataset, last = getattr(data_loader, "dataset", None), len(data_loader)  # type: ignore[arg-type]
    watch = FailureWatch(
        failures or FailureOptions(),
        model,
        data_loader,
        precision,
        device,
        seed=seed,
        last_checkpoint=getattr(checkpointer, "get_checkpoint_file", None),
    )
    watch.response.load_state_dict(arguments)
    trace = trace or Trace()
    buffer = LossBuffer(getattr(dataset, "id_to_img_map", None), watch.response, trace=trace)
    watch.history = buffer.history
    start = arguments["iteration"]
    time_limit = time_limit or TimeLimit(last)
    last = time_limit.begin(start)
    progress = TrainProgress(start, last, device=device, iterations_per_epoch=iterations_per_epoch, sink=sink)
    progress.load_state_dict(arguments.get("meters", {}))
    if arguments.get("scaler") and precision.scaler.is_enabled():
        precision.scaler.load_state_dict(arguments["scaler"])
    step = TrainStep(
        model,
        optimizer,
        scheduler,
        precision,
        accumulate_steps=accumulate_steps,
        max_grad_norm=max_grad_norm,
        skip_nonfinite=watch.response.keeps_on,
    )
    saver = Saver(
        checkpointer,
        checkpoint_period,
        arguments,
        model,
        precision,
        progress,
        in_background=save_in_background,
        before=before_save,
    )
    loop = _Loop(
        dataset=dataset,
        arguments=arguments,
        last=last,
        seed=seed,
        log_period=log_period,
        iterations_per_epoch=iterations_per_epoch,
        step=step,
        buffer=buffer,
        trace=trace,
        watch=watch,
        progress=progress,
        saver=saver,
        time_limit=time_limit,
        breaks=Breaks(per_iter_end_callback_fn, evaluates_after, stop or StopSignals(), model, saver),
    )
    logger.info("Start training at iteration %d of %d", start, last)
    model.train()
    step.clear_gradients()
    summary = loop.run(
        lambda: Prefetcher(data_loader, Preparation(precision, device, normalize), device, overlap=prefetch)
    )
    duration = datetime.timedelta(seconds=summary.seconds)
    per_iteration = summary.seconds / max(summary.iterations, 1)
    logger.info("Total training time: %s (%.4f s / it)", duration, per_iteration)
    return summary


@dataclass
class _Loop:
    """What happens in an iteration, and between two.

    Args:
        dataset: behind the batches, or None.
        arguments: ``iteration``, iterations done so far, and what else a checkpoint holds; updated here.
        last: iteration after which the run is done; the time limit may take it back.
        seed, log_period, iterations_per_epoch: see do_train.
        step, buffer, trace, watch, progress, saver, time_limit, breaks: the parts of the run.
    """

    dataset: Any
    arguments: dict[str, Any]
    last: int
    seed: int
    log_period: int
    iterations_per_epoch: int
    step: TrainStep
    buffer: LossBuffer
    trace: Trace
    watch: FailureWatch
    progress: TrainProgress
    saver: Saver
    time_limit: TimeLimit
    breaks: Breaks

    def run(self, make_batches: Callable[[], Iterable]) -> TrainSummary:
        """Train until the batches end, or the callback or a signal ends it, and save."""
        start = iteration = self.arguments["iteration"]
        num_images = 0
        stopped_early = self.breaks.at_resume(start)
        batches = make_batches()
        self.progress.start()
        is_over = stopped_early or start == self.last
        for iteration, batch in enumerate(() if is_over else self.watch.batches(batches), start + 1):
            num_images += self._compute(iteration, batch) * comm.get_world_size()
            stopped_early = self._follow_up(iteration)
            if stopped_early or iteration == self.last:
                break
        if iteration == start and (stopped_early or start == self.last > 0):
            self.saver.complete(start)
        elif stopped_early and iteration < self.last:
            report_broken_images(self.dataset)
            self._read_losses()
            self._save(iteration, final=True)
        self.saver.wait()
        seconds = self.progress.seconds()
        self.progress.close()
        return TrainSummary(iteration - start, num_images, seconds, stopped_early)

    def _compute(self, iteration: int, batch: tuple[ImageList, Any, Sequence[int]]) -> int:
        """Forward, backward and, where one is due, the update; gives the number of images."""
        images, targets, indices = batch
        self.progress.data_arrived()
        seed_step(self.seed, iteration, comm.get_rank())
        lr = self.step.optimizer.param_groups[0]["lr"]
        self.trace.begin(iteration, lr, indices)
        self.watch.begin(iteration, lr, batch)
        with self.watch.naming():
            losses = self.step(images, targets, iteration=iteration)
        self.buffer.append(iteration, losses, indices, dropped=self.step.dropped(iteration))
        self.arguments["iteration"] = iteration
        return len(indices)

    def _follow_up(self, iteration: int) -> bool:
        """Read, log, save and call back, where it is time; True ends the training."""
        updated = self.step.ends_update(iteration)
        self.last = self.progress.last = self.time_limit.after(iteration, updated=updated)
        at_end = iteration == self.last
        if at_end or (self.iterations_per_epoch and iteration % self.iterations_per_epoch == 0):
            report_broken_images(self.dataset)
        leaves = self.breaks.is_asked_to_stop() and updated and not at_end
        saves = at_end or leaves or self.saver.is_due(iteration, updated)
        logs = at_end or iteration % self.log_period == 0
        if saves or logs or self.breaks.evaluates_after(iteration) or self.step.guard.is_noticed():
            self._read_losses()
        self.progress.iteration_done()
        if logs:
            self.progress.report(iteration, lr=self.watch.lr)
        if saves:
            self._save(iteration, final=at_end, at_once=leaves)
        if leaves:
            self.breaks.leave()
        return self.breaks.after(iteration, updated=updated, buffer=self.buffer)

    def _read_losses(self) -> None:
        """Fetch the losses of the last iterations: the one synchronisation with the device."""
        self.progress.add_losses(self.buffer.read())
        self.arguments.update(self.watch.response.state_dict())

    def _save(self, iteration: int, *, final: bool, at_once: bool = False) -> None:
        self.trace.write_weights(iteration, self.step.model)
        self.saver.save(iteration, final=final, at_once=at_once)
