"""The training phase of a job."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from typing import Any

from torch import nn

from maskrcnn_benchmark.apps.manifest import RunRecord
from maskrcnn_benchmark.apps.start import Run, start_run
from maskrcnn_benchmark.apps.tester import Tester
from maskrcnn_benchmark.apps.train import build_and_train
from maskrcnn_benchmark.checkpoint.history import newest_checkpoint
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.signals import StopSignals
from maskrcnn_benchmark.tracking import MetricSink, MlperfSink, SinkGroup, TensorBoardSink
from maskrcnn_benchmark.tracking.sink import Step
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.digest import digest_file
from maskrcnn_benchmark.utils.files import write_atomically
from maskrcnn_benchmark.utils.launch import get_local_rank
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.dataset import TrainingData, make_training_data
from maskrcnn_benchmark.ymir.failures import failing_as, failing_as_data
from maskrcnn_benchmark.ymir.finetune import build_start_weights
from maskrcnn_benchmark.ymir.job import Job
from maskrcnn_benchmark.ymir.monitor import Share
from maskrcnn_benchmark.ymir.network_config import TrainingPlan, find_config_file, make_training_plan
from maskrcnn_benchmark.ymir.results import check_patterns
from maskrcnn_benchmark.ymir.stages import StageWriter
from maskrcnn_benchmark.ymir.weights import ChosenWeights, choose_weights, make_class_names, make_local_weights

logger = logging.getLogger("maskrcnn_benchmark.ymir")

RUN_FOLDER, FINGERPRINT = "run", "job.json"


def run_training(job: Job, share: Share, stop: StopSignals) -> None:
    """Read the data, train, evaluate every val_interval iterations and leave a stage of the result each time.

    Args:
        job: all its processes call this.
        share: is told how far it is.
        stop: what this process was told.

    Raises:
        JobError: a setting, the data or the weights cannot be used.
        Interrupted: the process was told to stop; the run's state is saved.
    """
    check_patterns(job.settings.names("ymir_saved_file_patterns"))
    find_config_file(job.settings, job.root)
    prepared: tuple[TrainingData, str] | None = None
    if comm.is_main_process():
        data = make_training_data(job.environment, job.settings, job.work_path("annotations"), share.prepared)
        prepared = data, prepare_weights(job, data)
    data, weights = comm.broadcast(prepared)
    with failing_as(ReturnCode.CONFIG):
        plan = make_plan(job, data, weights)
        goes_on = comm.broadcast(comm.is_main_process() and prepare_folder(job, plan, data))
        run = start_run(make_arguments(), plan.cfg, training=True, testing=True)
    if plan.has_masks and not data.has_masks:
        logger.warning("No object has an outline, so that boxes are learnt as masks; export seg-coco:raw for outlines")
    with run:
        stages = StageWriter.make(job, plan, anew=not goes_on) if comm.is_main_process() else None
        if stages is not None:
            run.sink = SinkGroup((run.sink, *make_own_sinks(job, plan, share)))
        train(run, stages, stop)
        if stages is not None:
            stages.finish(share)
    if stages is not None:
        keep_log(job)
        os.unlink(fingerprint_path(job))  # what is started here again begins anew


def train(run: Run, stages: StageWriter | None, stop: StopSignals) -> None:
    """Train and evaluate; each evaluation hands model and figures to ``stages``."""
    precision = Precision.from_config(run.cfg, run.device, use_amp=False)
    mlperf = MlperfSink.from_config(run.cfg, run.output_dir)
    tester = StageTester(run, precision, mlperf, stages)
    with RunRecord(run.output_dir) as record, contextlib.closing(tester):
        with failing_as_data():
            model, _ = build_and_train(run.cfg, run, precision, tester, mlperf, record, stop)
            if not tester.has_run:
                tester(model, iteration=record.arguments["iteration"])
        record.finish("finished", tester.results)


class StageTester(Tester):
    """Evaluates, and makes a stage of the result of each model that it has evaluated.

    Args:
        run, precision, mlperf: as for Tester.
        stages: takes the models; None on processes that do not write.
    """

    def __init__(self, run: Run, precision: Precision, mlperf: MlperfSink, stages: StageWriter | None) -> None:
        super().__init__(run, precision, mlperf)
        self.stages = stages
        self._evaluated: tuple[nn.Module, int] | None = None

    def __call__(
        self, model: nn.Module, *, on_the_way: bool = False, iteration: int | None = None
    ) -> Mapping[str, Mapping[str, float]]:
        """As that of Tester."""
        self._evaluated = (model, iteration or 0)
        return super().__call__(model, on_the_way=on_the_way, iteration=iteration)

    def _finish(self, results: list[Any], iteration: int | None) -> None:
        super()._finish(results, iteration)
        if self.stages is not None and self._evaluated is not None:
            model, number = self._evaluated
            self.stages.add(number, model, self.results, results[0][1], self.data_loaders[0].dataset.coco)


class ProgressSink(MetricSink):
    """Tells the monitor how many iterations are done.

    Args:
        share: of the job.
        max_iter: of the run.
    """

    def __init__(self, share: Share, max_iter: int) -> None:
        self.share = share
        self.max_iter = max_iter

    def log(self, step: Step, data: Mapping[str, Any], *, text: Mapping[str, str] | None = None) -> None:
        """Take the iteration of a step."""
        if step and not isinstance(step, str):
            self.share.done(step[0] / self.max_iter)


def prepare_weights(job: Job, data: TrainingData) -> str:
    """The weights to begin with: those of the model that is finetuned, or the image's own, or none.

    Raises:
        JobError: they cannot be used.
    """
    settings, options = job.settings, job.settings.options
    chosen = choose_weights(settings, "pretrained_model_params", job.environment.input.models_dir)
    if chosen is None:
        with failing_as(ReturnCode.CONFIG):
            if "MODEL.WEIGHT" in options[::2]:
                return options[1::2][options[::2].index("MODEL.WEIGHT")]
            source, old_names = make_local_weights(settings, job.defaults, job.root), ()
        if not os.path.isfile(source):
            return source
    else:
        source, old_names = chosen.path, known_classes(chosen)
    path = job.work_path("start.pth")
    with failing_as(ReturnCode.CONFIG):
        cfg = make_plan(job, data, source).cfg
    with failing_as(ReturnCode.WEIGHTS):
        build_start_weights(cfg, source, path, old_names=old_names, new_names=settings.class_names)
    return path


def known_classes(chosen: ChosenWeights) -> tuple[str, ...]:
    """The classes that weights were trained for, by the config beside them; () where that does not say."""
    try:
        return tuple(make_class_names(chosen))
    except JobError as error:
        logger.warning("The classes of the model to finetune are not known: %s", error)
        return ()


def make_plan(job: Job, data: TrainingData, weights: str) -> TrainingPlan:
    """The config of the run; see `make_training_plan`."""
    return make_training_plan(
        job.defaults,
        job.settings,
        data,
        root=job.root,
        output_dir=job.work_path(RUN_FOLDER),
        num_processes=comm.get_world_size(),
        weights=weights,
    )


def make_arguments() -> argparse.Namespace:
    """The options of tools/train_net.py, of which a job has none: everything is in the config."""
    return argparse.Namespace(
        config_file="", opts=[], local_rank=get_local_rank(), fp16=False, amp=False, json_summary="", max_steps=0
    )


def fingerprint_path(job: Job) -> str:
    """Where it is kept what a run began with."""
    return job.work_path(RUN_FOLDER, FINGERPRINT)


def prepare_folder(job: Job, plan: TrainingPlan, data: TrainingData) -> bool:
    """Whether the run goes on from its own last checkpoint; otherwise the run's folder is empty now.

    It goes on where one with the same config, data and weights to begin with was interrupted.

    Raises:
        OSError: the folder cannot be written.
    """
    files = {"train": data.train_file, "val": data.val_file, "weights": plan.weights}
    facts = {
        "config": plan.cfg.dump(),
        **{name: digest_file(path) for name, path in files.items() if os.path.isfile(path)},
    }
    path, folder = fingerprint_path(job), job.work_path(RUN_FOLDER)
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        if json.load(file) == facts and newest_checkpoint(folder):
            logger.info("Going on from %s", newest_checkpoint(folder))
            return True
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, exist_ok=True)
    write_atomically(path, lambda file: file.write(json.dumps(facts).encode()))
    return False


def make_own_sinks(job: Job, plan: TrainingPlan, share: Share) -> list[MetricSink]:
    """TensorBoard's events in the platform's folder, and the monitor."""
    sinks: list[MetricSink] = [ProgressSink(share, plan.max_iter)]
    try:
        sinks.append(TensorBoardSink(job.environment.output.tensorboard_dir))
    except ImportError as error:
        logger.warning("%s", error)
    return sinks


def keep_log(job: Job) -> None:
    """Put the run's log where the platform keeps it."""
    with contextlib.suppress(OSError):
        shutil.copyfile(job.work_path(RUN_FOLDER, "log.txt"), os.path.join(job.environment.output.root_dir, "log.txt"))
