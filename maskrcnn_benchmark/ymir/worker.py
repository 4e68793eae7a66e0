"""A process that does a job's work, alone or with others; why it cannot, it tells the one that started it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import traceback

from yacs.config import CfgNode

from maskrcnn_benchmark.apps.launcher import show_crashes
from maskrcnn_benchmark.engine.signals import Interrupted, StopSignals
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.allocator import keep_pages
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.ymir.codes import JobError
from maskrcnn_benchmark.ymir.failures import code_of, message_of
from maskrcnn_benchmark.ymir.inference import make_phases
from maskrcnn_benchmark.ymir.job import Job, choose_device, join_processes
from maskrcnn_benchmark.ymir.monitor import Monitor, Progress
from maskrcnn_benchmark.ymir.outcome import Failure, report_folder
from maskrcnn_benchmark.ymir.protocol import Environment, read_environment
from maskrcnn_benchmark.ymir.settings import read_settings
from maskrcnn_benchmark.ymir.training import run_training

logger = logging.getLogger("maskrcnn_benchmark.ymir")

_PAUSE = 3.0  # seconds that one which noticed that another has gone waits for that one's word


def main(defaults: CfgNode, root: str) -> int:
    """Do the job's phases; the exit status is 0, or 1 when the job has failed.

    Args:
        defaults: the config tree; stays as it is.
        root: folder of the code.
    """
    show_crashes()
    rank = int(os.environ.get("RANK", "0"))
    setup_logger("maskrcnn_benchmark", "", rank)
    folder = ""
    try:
        environment = read_environment()
        folder = environment.output.root_dir
        with StopSignals() as stop:
            run_job(environment, defaults, root, stop, rank=rank)
        comm.destroy_process_group()
    except (Exception, Interrupted) as error:
        failure = make_failure(error, folder)
        logger.debug("traceback", exc_info=error)
        if failure.is_echo:
            time.sleep(_PAUSE)
        with contextlib.suppress(OSError):
            if report_folder():
                failure.leave(report_folder(), rank)
        if not report_folder():
            sys.stderr.write(f"{failure.details}\nerror {failure.code}: {failure.message}\n")
        return 1
    return 0


def run_job(environment: Environment, defaults: CfgNode, root: str, stop: StopSignals, *, rank: int) -> None:
    """Train, or mine and infer.

    Args:
        environment: of the job.
        defaults: the config tree; stays as it is.
        root: folder of the code.
        stop: what this process was told.
        rank: of this process; the first one writes.

    Raises:
        JobError: the job cannot be done.
    """
    keep_pages()
    settings = read_settings(environment.input.config_file, root=root)
    monitor = Monitor(environment.output.monitor_file, environment.task_id, environment.protocol)
    progress = Progress(monitor if rank == 0 else None)
    job = Job(environment, settings, defaults, root, choose_device(settings))
    join_processes(job.device)
    if environment.run_training:
        run_training(job, progress.phases(1)[0], stop)
        return
    phases = make_phases(job)
    for phase, share in zip(phases, progress.phases(len(phases)), strict=True):
        share.prepared(1.0)
        phase(share)


def make_failure(error: BaseException, folder: str) -> Failure:
    """What the platform is told of an exception; one that says all in its sentence goes without its stack.

    Args:
        error: what happened.
        folder: of the results.
    """
    details = "" if isinstance(error, JobError | Interrupted) else "".join(traceback.format_exception(error))
    return Failure(int(code_of(error)), message_of(error, folder), details, is_echo=comm.is_lost_connection(error))
