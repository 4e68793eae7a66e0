"""The training loop."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable
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

    Raises:
        Interrupted: ``stop`` ended the run.
        FloatingPointError: a loss or a gradient is not finite. The weights are then those from before that iteration
            (on a GPU with a fused optimiser only), and no checkpoint is written after it.
        MemoryError: memory ran out; batch, remedy and last checkpoint are named.
        LoaderError: a worker of the loader died or does not answer.
    """
    device = torch.device(device)
    precision = precision or Precision(device.type)
    trace = trace or Trace()
    watch = FailureWatch(
        failures or FailureOptions(),
        model,
        data_loader,
        precision,
        device,
        seed=seed,
        last_checkpoint=getattr(checkpointer, "get_checkpoint_file", None),
    )
    step = TrainStep(
        model,
        optimizer,
        scheduler,
        precision,
        accumulate_steps=accumulate_steps,
        max_grad_norm=max_grad_norm,
        skip_nonfinite=watch.response.keeps_on,
    )
    ids = getattr(getattr(data_loader, "dataset", None), "id_to_img_map", None)
    buffer = LossBuffer(ids, watch.response, trace=trace)
    watch.history = buffer.history
    watch.response.load_state_dict(arguments)
    start, last = arguments["iteration"], len(data_loader)  # type: ignore[arg-type]
    progress = TrainProgress(start, last, device=device, iterations_per_epoch=iterations_per_epoch, sink=sink)
    if arguments.get("scaler") and precision.scaler.is_enabled():
        precision.scaler.load_state_dict(arguments["scaler"])
    progress.load_state_dict(arguments.get("meters", {}))
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
    breaks = Breaks(per_iter_end_callback_fn, evaluates_after, stop or StopSignals(), model, saver)

    logger.info("Start training at iteration %d of %d", start, last)
    model.train()
    step.clear_gradients()
    num_images, iteration = 0, start
    stopped_early = breaks.at_resume(start)
    batches = Prefetcher(data_loader, Preparation(precision, device, normalize), device, overlap=prefetch)
    progress.start()
    for iteration, (images, targets, indices) in enumerate(() if stopped_early else watch.batches(batches), start + 1):
        progress.data_arrived()
        seed_step(seed, iteration, comm.get_rank())
        lr = optimizer.param_groups[0]["lr"]
        trace.begin(iteration, lr, indices)
        watch.begin(iteration, lr, (images, targets, indices))
        with watch.naming():
            losses = step(images, targets, iteration=iteration)
        buffer.append(iteration, losses, indices, dropped=step.dropped(iteration))
        arguments["iteration"] = iteration
        num_images += len(indices) * comm.get_world_size()

        at_end = iteration == last
        if at_end or (iterations_per_epoch and iteration % iterations_per_epoch == 0):
            report_broken_images(getattr(data_loader, "dataset", None))
        updated = step.ends_update(iteration)
        leaves = breaks.is_asked_to_stop() and updated and not at_end
        saves = at_end or leaves or saver.is_due(iteration, updated)
        logs = at_end or iteration % log_period == 0
        if saves or logs or breaks.evaluates_after(iteration) or step.guard.is_noticed():
            progress.add_losses(buffer.read())  # the one synchronisation with the device
            arguments.update(watch.response.state_dict())
        progress.iteration_done()
        if logs:
            progress.report(iteration, lr=lr)
        if saves:
            trace.write_weights(iteration, model)
            saver.save(iteration, final=at_end, at_once=leaves)
        if leaves:
            breaks.leave()
        stopped_early = breaks.after(iteration, updated=updated, buffer=buffer)
        if stopped_early:
            break
    if iteration == start and (stopped_early or start == last > 0):
        saver.complete(start)
    elif stopped_early and iteration < last:
        report_broken_images(getattr(data_loader, "dataset", None))
        progress.add_losses(buffer.read())
        arguments.update(watch.response.state_dict())
        trace.write_weights(iteration, model)
        saver.save(iteration, final=True)
    saver.wait()
    return _finish(progress, TrainSummary(iteration - start, num_images, progress.seconds(), stopped_early))


def _finish(progress: TrainProgress, summary: TrainSummary) -> TrainSummary:
    progress.close()
    duration = datetime.timedelta(seconds=summary.seconds)
    per_iteration = summary.seconds / max(summary.iterations, 1)
    logger.info("Total training time: %s (%.4f s / it)", duration, per_iteration)
    return summary
