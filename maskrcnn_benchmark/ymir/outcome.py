"""How a worker tells the process that started it why it failed; needs no torch."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from maskrcnn_benchmark.ymir.codes import ReturnCode

FOLDER_VARIABLE = "MASKRCNN_YMIR_REPORTS"
"""A folder in which each worker that fails leaves a file."""


@dataclass(frozen=True)
class Failure:
    """Why a worker has ended.

    Args:
        code: for the platform.
        message: one sentence.
        details: the stack.
        is_echo: it only noticed that another worker has gone.
    """

    code: int
    message: str
    details: str = ""
    is_echo: bool = False

    def leave(self, folder: str, rank: int) -> None:
        """Write it down for the process that started this one.

        Raises:
            OSError: the folder cannot be written.
        """
        Path(folder, f"{rank}.json").write_text(json.dumps(asdict(self)), encoding="utf-8")


def find_failure(folder: str, status: int) -> Failure:
    """Why the workers have failed: what the first of them says that is no echo, or else what their status says.

    Args:
        folder: of their files.
        status: exit status of the worker, or of what started several; negative for a signal.
    """
    files = sorted(Path(folder).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    failures = [Failure(**json.loads(path.read_text(encoding="utf-8"))) for path in files]
    own = [failure for failure in failures if not failure.is_echo]
    return next(iter([*own, *failures]), None) or explain_status(status)


def explain_status(status: int) -> Failure:
    """What is known of workers that ended without a word."""
    if status == -signal.SIGKILL:
        return Failure(
            ReturnCode.OUT_OF_MEMORY,
            "the worker was killed (SIGKILL), most likely because the machine or the container ran out of memory; "
            "lower batch_size_per_gpu or num_workers_per_gpu",
        )
    how = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return Failure(ReturnCode.OTHER, f"the worker {how} without saying why; the log above may tell more")


def report_folder() -> str:
    """Where this worker's file goes; "" where nobody asked for one."""
    return os.environ.get(FOLDER_VARIABLE, "")
