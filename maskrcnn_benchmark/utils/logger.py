"""Logging to the terminal and to log.txt, and the step text of DLLogger lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

LINE_FORMAT = "%(asctime)s %(name)s %(levelname)s: %(message)s"


def _hide_periodic(record: logging.LogRecord) -> bool:
    # Lines marked periodic repeat what the progress bar of a terminal already shows.
    return not getattr(record, "periodic", False)


def setup_logger(
    name: str, save_dir: str | None, distributed_rank: int = 0, filename: str = "log.txt"
) -> logging.Logger:
    """Send the records of logger ``name`` to stdout (INFO and up) and to ``save_dir/filename`` (DEBUG and up).

    A second call replaces the handlers that an earlier one made, so that no line appears twice. Only rank 0 writes;
    other ranks keep warnings and errors on stderr.

    Args:
        name: logger, its children included.
        save_dir: existing folder of the log file; None or "" for none.
        distributed_rank: rank of this process.
        filename: name of the log file; an existing one is continued.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in [h for h in logger.handlers if getattr(h, "made_by_setup_logger", False)]:
        logger.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = []
    if distributed_rank > 0:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[0].setLevel(logging.WARNING)
    else:
        handlers.append(logging.StreamHandler(sys.stdout))
        handlers[0].setLevel(logging.INFO)
        if sys.stdout.isatty():
            handlers[0].addFilter(_hide_periodic)
        if save_dir:
            handlers.append(logging.FileHandler(os.path.join(save_dir, filename), encoding="utf-8"))
            handlers[1].setLevel(logging.DEBUG)
    for handler in handlers:
        handler.setFormatter(logging.Formatter(LINE_FORMAT))
        handler.made_by_setup_logger = True  # type: ignore[attr-defined]
        logger.addHandler(handler)
    return logger


def format_step(step: str | Sequence[int]) -> str:
    """Step text of a DLLogger line: a word as it is; (iteration, epoch, validation iteration), or the first of them."""
    if isinstance(step, str):
        return step
    names = ("Training Iteration", "Training Epoch", "Validation Iteration")
    return "".join(f"{name}: {value} " for name, value in zip(names, step, strict=False))
