"""What /usr/bin/start.sh starts: checks a job, has it done, and tells the platform how it ended. Needs no torch."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from yacs.config import CfgNode

from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.live_code import make_live_command
from maskrcnn_benchmark.ymir.monitor import Monitor, phase_weights
from maskrcnn_benchmark.ymir.outcome import FOLDER_VARIABLE, Failure, find_failure
from maskrcnn_benchmark.ymir.protocol import Environment, OutputPaths, Protocol, read_environment
from maskrcnn_benchmark.ymir.settings import JobSettings, read_settings
from maskrcnn_benchmark.ymir.variables import worker_variables

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools" / "ymir_start.py"
PROCESSES_VARIABLE = "YMIR_CPU_PROCESSES"
"""How many processes share a job without a GPU; one by default."""


def make_parser() -> argparse.ArgumentParser:
    """The options of tools/ymir_start.py."""
    parser = argparse.ArgumentParser(
        description="Do the job of the YMIR platform that /in/env.yaml describes; docs/ymir.md. There are no options; "
        "YMIR_ENV_FILE names another env.yaml."
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(defaults: CfgNode, arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit status is 0, or 1 when the job has failed.

    Args:
        defaults: the config tree; stays as it is.
        arguments: words after the command; those of the process by default.
    """
    if make_parser().parse_args(arguments).worker:
        from maskrcnn_benchmark.ymir import worker

        return worker.main(defaults, str(ROOT))
    monitor = Monitor(OutputPaths().monitor_file, "default-task", Protocol.of("", ""))
    try:
        environment = read_environment()
        monitor = Monitor(environment.output.monitor_file, environment.task_id, environment.protocol)
        monitor.running(0.0)
        command = make_live_command(environment, read_settings(environment.input.config_file, root=None))
        if command is not None:
            os.chdir(command.folder)
            os.execve(command.words[0], command.words, command.environment)
        settings = read_settings(environment.input.config_file, root=str(ROOT))
        check(settings)
        failure = supervise(environment, settings)
    except JobError as error:
        failure = Failure(int(error.code), str(error))
    except Exception as error:  # whatever it is, the platform must hear of it
        failure = Failure(int(ReturnCode.OTHER), f"{type(error).__name__}: {error}", traceback.format_exc())
    if failure is None:
        monitor.running(1.0)
        return 0
    monitor.failed(ReturnCode(failure.code), failure.message, failure.details)
    sys.stderr.write(f"{failure.details}\nerror {failure.code}: {failure.message}\n".lstrip("\n"))
    return 1


def check(settings: JobSettings) -> None:
    """Find what is wrong with the settings before anything is loaded.

    Raises:
        JobError: one is wrong.
    """
    for name in ("class_names", "object_type", "gpu_ids", "batch_size", "num_workers", "options"):
        getattr(settings, name)
    phase_weights(os.environ)


def supervise(environment: Environment, settings: JobSettings) -> Failure | None:
    """Have the job done by workers of this machine, and pass on to them what this process is told by signals.

    Returns:
        Why it failed; None where it did not.
    """
    count = num_processes(settings)
    words = [sys.executable, "-u", str(PROGRAM), "--worker"]
    if count > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        words = [sys.executable, "-u", *torchrun, str(PROGRAM), "--worker"]
    scratch = scratch_folder(environment)
    with tempfile.TemporaryDirectory(dir=scratch) as reports:
        variables = worker_variables(os.environ, environment.work_dir, ROOT)
        variables |= {"TMPDIR": scratch, FOLDER_VARIABLE: reports}
        # A session of its own: Ctrl-C of a terminal then comes once.
        with subprocess.Popen(words, env=variables, start_new_session=True) as process, _passing_on(process):
            status = process.wait()
        return find_failure(reports, status) if status else None


def num_processes(settings: JobSettings) -> int:
    """How many processes share the job."""
    if ids := settings.gpu_ids:
        return len(ids)
    given = os.environ.get(PROCESSES_VARIABLE, "")
    return max(int(given), 1) if given.isdecimal() else 1


def scratch_folder(environment: Environment) -> str:
    """A folder that can be written: the system's for temporary files, or one among the results.

    Raises:
        JobError: there is none.
    """
    for folder in (tempfile.gettempdir, lambda: environment.work_dir):
        with contextlib.suppress(OSError):
            path = folder()
            os.makedirs(path, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                return path
    raise JobError(
        ReturnCode.OTHER,
        f"neither the system's temporary folder nor {environment.work_dir} can be written; make room, or let the "
        "container's user write there",
    )


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Tell the workers to stop when this process is told so: once, since a second signal would end them at once."""
    told = False

    def tell(_number: int, _frame: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = True
            process.terminate()

    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
