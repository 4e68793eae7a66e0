"""From an exception to what the platform is told."""

from __future__ import annotations

import contextlib
import errno
import traceback
import urllib.error
from collections.abc import Iterator
from pathlib import Path

from maskrcnn_benchmark.apps.errors import describe
from maskrcnn_benchmark.engine.failures import explain
from maskrcnn_benchmark.engine.signals import Interrupted
from maskrcnn_benchmark.utils.memory import ran_out_of_memory
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode

# What torch and the driver say where the image's CUDA and the machine do not go together.
_MISMATCH = (
    "no kernel image is available",
    "CUDA driver version is insufficient",
    "driver on your system is too old",
    "forward compatibility was attempted",
    "unsupported toolchain",
)
_DATA_ROOM = Path(__file__).resolve().parents[1] / "data"
_USER_ERRORS = (ValueError, TypeError, KeyError, OSError)
_NETWORK_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError)
# Trouble with the disk, whatever is read or written.
_DISK = {errno.ENOSPC: "no space is left", errno.EDQUOT: "the quota is used up", errno.EROFS: "it is read-only"}


@contextlib.contextmanager
def failing_as(code: ReturnCode) -> Iterator[None]:
    """In here a mistake of the user's is one of this kind."""
    try:
        yield
    except _USER_ERRORS as error:
        if code_by_kind(error) is not None:
            raise
        raise JobError(code, describe(error)) from error


@contextlib.contextmanager
def failing_as_data() -> Iterator[None]:
    """In here a mistake is one of the data set where it comes out of the reading of data, else one of the settings."""
    try:
        with failing_as(ReturnCode.CONFIG):
            yield
    except JobError as error:
        cause = error.__cause__
        if cause is not None and _is_of_data(cause):
            code = ReturnCode.DATASET if isinstance(cause, FileNotFoundError) else ReturnCode.ANNOTATION
            raise JobError(code, str(error)) from cause
        raise


def _is_of_data(error: BaseException) -> bool:
    """Whether an error was raised by the package's room for data, in this process or in a loader's worker."""
    files = (Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__))
    return "DataLoader worker" in str(error) or any(_DATA_ROOM in file.parents for file in files)


def code_by_kind(error: BaseException) -> ReturnCode | None:
    """The code of an error that has the same reason wherever it comes from; None for others."""
    if isinstance(error, JobError):
        return error.code
    if ran_out_of_memory(error):
        return ReturnCode.OUT_OF_MEMORY
    if isinstance(error, FloatingPointError):
        return ReturnCode.NAN
    if isinstance(error, OSError) and error.errno in _DISK:
        return ReturnCode.OTHER
    if isinstance(error, _NETWORK_ERRORS):
        return ReturnCode.NETWORK
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _MISMATCH):
        return ReturnCode.GPU_MISMATCH
    return None


def code_of(error: BaseException) -> ReturnCode:
    """The code of any error."""
    return code_by_kind(error) or ReturnCode.OTHER


def message_of(error: BaseException, folder: str) -> str:
    """One sentence for the user.

    Args:
        error: what happened.
        folder: of the results, which is meant where an error of the disk names no file.
    """
    if isinstance(error, Interrupted):
        return f"the job was told to stop by {error.name}; started again on the same folders it goes on"
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"{error.filename or folder} cannot be written: {_DISK[error.errno]}; make room and start again"
    if ran_out_of_memory(error):
        return f"{explain(error) or describe(error)}; IMS_PER_BATCH follows batch_size_per_gpu of the job"
    sentence = explain(error)
    if sentence or isinstance(error, JobError):
        return sentence or describe(error)
    return f"{type(error).__name__}: {describe(error)}"
