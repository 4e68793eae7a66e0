"""Child processes for tests that cost no start: forks of this one, which must do little and end by themselves."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

from maskrcnn_benchmark.checkpoint.lock import FolderLock

CONTEXT = multiprocessing.get_context("fork")


def exit_code(function: Callable[..., object], *args: Any) -> int:
    """Run a function in a child; its exit code, negative for the signal that ended it."""
    child = CONTEXT.Process(target=function, args=args)
    child.start()
    child.join()
    return child.exitcode


def _hold(folder: str, ready: Any) -> None:
    lock = FolderLock(folder)
    ready.set()
    time.sleep(600)
    lock.close()


@contextlib.contextmanager
def holding(folder: object) -> Iterator[Any]:
    """A child that holds a folder as a training run does; it is killed in the end."""
    ready = CONTEXT.Event()
    child = CONTEXT.Process(target=_hold, args=(str(folder), ready))
    child.start()
    try:
        assert ready.wait(60)
        yield child
    finally:
        child.kill()
        child.join()
