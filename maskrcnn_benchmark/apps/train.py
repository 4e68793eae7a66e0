"""Train a detector: what tools/train_net.py does."""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.categories import save_categories
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.manifest import RunRecord
from maskrcnn_benchmark.apps.options.train_net import make_parser as make_parser
from maskrcnn_benchmark.apps.report.report import make_report
from maskrcnn_benchmark.apps.sinks import make_last_files
from maskrcnn_benchmark.apps.start import Run, start_run
from maskrcnn_benchmark.apps.tester import Tester
from maskrcnn_benchmark.apps.time_budget import TimeBudget
from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.checkpoint.history import newest_checkpoint
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.build import make_device_normalize
from maskrcnn_benchmark.engine.capture import capture_trunk
from maskrcnn_benchmark.engine.distributed import wrap_model
from maskrcnn_benchmark.engine.early_exit import EarlyExit, PerEpochEvaluation, PeriodicEvaluation
from maskrcnn_benchmark.engine.failures import FailureOptions
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.seeding import seed_step
from maskrcnn_benchmark.engine.signals import Interrupted, StopSignals
from maskrcnn_benchmark.engine.trainer import TrainSummary, do_train
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.solver import make_lr_scheduler, make_optimizer
from maskrcnn_benchmark.solver.world_size import make_progress
from maskrcnn_benchmark.tracking import MlperfSink, SinkGroup
from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark.trainer")

REASONS = ("finished", "time used up", "target reached")  # why a run came to its end
METADATA = {"BBOX_mAP": None, "MASK_mAP": None, "e2e_train_time": "s", "train_perf_fps": "images/s"}


@user_errors()
def main(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Run the program.

    Args:
        args: parsed options of ``make_parser``.
        cfg: the config tree with its defaults; stays as it is.
    """
    with StopSignals() as stop, stop.exits():
        run_training(args, cfg, stop)


def run_training(args: argparse.Namespace, cfg: CfgNode, stop: StopSignals) -> Mapping[str, Mapping[str, float]]:
    """The program without what ends a process, for callers that do more than one run.

    Args:
        args: parsed options of ``make_parser``.
        cfg: the config tree with its defaults; stays as it is.
        stop: what the process was told.

    Returns:
        The last figures, as ``Tester.results``.

    Raises:
        Interrupted: the process was told to stop.
    """
    with start_run(args, cfg, training=True, testing=not args.skip_test) as run:
        try:
            figures = train(args, run, stop)
        except Interrupted as reason:
            newest = newest_checkpoint(run.output_dir)
            how = f"from {newest}" if newest else "from the start, since there is no checkpoint"
            logger.warning("Told to stop by %s; the same command goes on %s", reason.name or "another process", how)
            raise
    comm.destroy_process_group()
    return figures


def train(args: argparse.Namespace, run: Run, stop: StopSignals) -> Mapping[str, Mapping[str, float]]:
    """Train and evaluate, and say how that went.

    Args:
        args: parsed options of ``make_parser``.
        run: the started program.
        stop: what the process was told.

    Returns:
        The last figures, as ``Tester.results``.

    Raises:
        Interrupted: the process was told to stop.
    """
    mlperf = MlperfSink.from_config(run.cfg, run.output_dir)
    run.sink = SinkGroup((run.sink, mlperf))
    for metric, unit in METADATA.items():
        run.sink.metadata(metric, {"unit": unit})
    precision = Precision.from_config(run.cfg, run.device, use_amp=run.use_amp)
    tester = Tester(run, precision, mlperf)
    budget = TimeBudget.from_config(run.cfg, run.output_dir, run.clock)
    begin = time.perf_counter()
    with RunRecord(run.output_dir) as record, contextlib.closing(tester):
        try:
            model, summary = build_and_train(
                run.cfg, run, precision, tester, mlperf, record, stop, budget=budget, evaluates=not args.skip_test
            )
        finally:
            tester.task.wait()
        figures = {"e2e_train_time": time.perf_counter() - begin, "train_perf_fps": summary.images_per_second}
        if not args.skip_test and not tester.has_run:
            if budget.allows(tester.seconds):
                tester(model)
            elif comm.is_main_process():
                logger.warning("The end of the run is not evaluated: the time is used up (SOLVER.MAX_TIME)")
        whole, short, reached = REASONS
        record.finish(reached if summary.stopped_early else short if budget.is_short else whole, tester.results)
    run.sink.log((), {**figures, **tester.figures()})
    make_report(run.cfg, run.output_dir)
    make_last_files(run.cfg, run.sink, run.output_dir)
    budget.finish()
    return tester.results


def build_and_train(
    cfg: CfgNode,
    run: Run,
    precision: Precision,
    tester: Tester,
    mlperf: MlperfSink,
    record: RunRecord,
    stop: StopSignals,
    *,
    budget: TimeBudget | None = None,
    evaluates: bool = False,
) -> tuple[nn.Module, TrainSummary]:
    """Build model, optimiser and loader, go on from the newest checkpoint where there is one, and train.

    Args:
        cfg: the whole config.
        run: the started program.
        precision: number format.
        tester: evaluates a model; called after each epoch with PER_EPOCH_EVAL, and every SOLVER.TEST_PERIOD iterations.
        mlperf: is told when the clock starts and of each epoch.
        record: keeps what the run's bits depend on.
        stop: what the process was told.
        budget: the time that the run has; None: all of it.
        evaluates: whether the tester is called after this, which takes time too.

    Returns:
        The trained model, wrapped where there are several processes, and what the loop did.
    """
    seed_step(cfg.SEED, 0, 0)  # the same initial weights on every process
    model = precision.place_model(build_detection_model(cfg), run.device)
    optimizer = make_optimizer(cfg, model)
    scheduler = make_lr_scheduler(cfg, optimizer)
    checkpointer = DetectronCheckpointer(
        cfg,
        model,
        optimizer,
        scheduler,
        run.output_dir,
        save_to_disk=comm.is_main_process(),
        keep=cfg.SOLVER.CHECKPOINT_KEEP,
    )
    arguments: dict[str, Any] = {"iteration": 0}
    if checkpointer.has_checkpoint():
        arguments.update(checkpointer.load())
        logger.info("Resuming at iteration %d; MODEL.WEIGHT is not read", arguments["iteration"])
    else:
        checkpointer.load_weights(cfg.MODEL.WEIGHT)
    tester.rewind(arguments["iteration"])
    run.sink.rewind(arguments["iteration"])
    progress = make_progress(cfg, arguments, scheduler, comm.get_world_size())
    capture_trunk(
        model,
        cfg.MODEL.CAPTURE,
        shapes=cfg.INPUT.SHAPE_BUCKETS,
        num_images=cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
        precision=precision,
        device=run.device,
    )
    model = wrap_model(model, run.device)
    normalize = make_device_normalize(cfg, run.device)
    mlperf.start_run()
    loader, iterations_per_epoch = make_data_loader(
        cfg,
        is_train=True,
        is_distributed=comm.get_world_size() > 1,
        start_iter=arguments["iteration"],
        keep_pixels=normalize is not None,
        progress=progress,
    )
    if run.output_dir and comm.is_main_process():
        save_categories(run.output_dir, loader.dataset)
    saves = cfg.SAVE_CHECKPOINT and bool(run.output_dir)
    limit = (budget or TimeBudget(0.0, 0, "", "", run.clock)).make_limit(
        cfg,
        start=arguments["iteration"],
        schedule=scheduler,
        checkpointer=checkpointer if saves else None,
        tester=tester if evaluates else None,
        model=model,
    )
    evaluation: PerEpochEvaluation | PeriodicEvaluation | None = None
    if cfg.PER_EPOCH_EVAL:
        aim = EarlyExit(min_bbox_map=cfg.MIN_BBOX_MAP, min_segm_map=cfg.MIN_MASK_MAP)
        evaluation = PerEpochEvaluation(
            lambda iteration: tester.after(iteration, model, limit.last), iterations_per_epoch, aim
        )
    if cfg.SOLVER.TEST_PERIOD > 0:
        # MLPerf's log tells events in their order. An evaluation that may end the run is waited for in any case.
        tester.in_background = cfg.TEST.IN_BACKGROUND and not mlperf.is_on
        evaluation = PeriodicEvaluation(
            lambda iteration: tester.after(iteration, model, limit.last, on_the_way=iteration < limit.last),
            cfg.SOLVER.TEST_PERIOD,
            evaluation,
            poll=tester.task.poll,
        )
    after_iteration = mlperf.follow(
        evaluation,
        first=arguments["iteration"],
        last=len(loader),
        iterations_per_epoch=iterations_per_epoch,
        num_images=len(loader.dataset),
    )
    trace = record.begin(cfg, model, loader, precision, run.device, arguments)
    with stop.deferred(), contextlib.closing(loader):
        summary = do_train(
            model,
            loader,
            optimizer,
            scheduler,
            checkpointer if saves else None,
            run.device,
            cfg.SOLVER.CHECKPOINT_PERIOD,
            arguments,
            precision=precision,
            normalize=normalize,
            prefetch=normalize is not None,
            accumulate_steps=cfg.SOLVER.ACCUMULATE_STEPS if cfg.SOLVER.ACCUMULATE_GRAD else 1,
            max_grad_norm=cfg.SOLVER.MAX_GRAD_NORM,
            log_period=cfg.SOLVER.LOG_PERIOD,
            seed=cfg.SEED,
            iterations_per_epoch=iterations_per_epoch,
            sink=run.sink,
            trace=trace,
            failures=FailureOptions.from_config(cfg),
            per_iter_end_callback_fn=after_iteration,
            evaluates_after=evaluation.is_due if evaluation is not None else None,
            save_in_background=cfg.SOLVER.CHECKPOINT_ASYNC,
            before_save=tester.task.wait,
            stop=stop,
            time_limit=limit,
        )
    return model, summary
