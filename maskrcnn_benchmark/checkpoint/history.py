"""The checkpoints in a run's folder: which one is the newest, which came before it, and which may go."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from maskrcnn_benchmark.checkpoint.files import read_weights, write_atomically

LAST_CHECKPOINT = "last_checkpoint"
FINAL = "model_final"
_NUMBERED = re.compile(r"model_(\d{7,})\.pth")


def tag_newest(folder: str, path: str) -> None:
    """Write into the file ``last_checkpoint`` which checkpoint is the newest."""
    write_atomically(os.path.join(folder, LAST_CHECKPOINT), lambda file: file.write(path.encode()))


def newest_checkpoint(folder: str) -> str:
    """Path of the newest checkpoint as ``last_checkpoint`` says; "" without that file.

    A run folder that was moved is found all the same.
    """
    tag = os.path.join(folder, LAST_CHECKPOINT)
    if not folder or not os.path.isfile(tag):
        return ""
    with open(tag, encoding="utf-8", errors="replace") as file:
        path = file.read().strip()
    beside = os.path.join(folder, os.path.basename(path))
    return beside if not os.path.isfile(path) and os.path.isfile(beside) else path


def read_newest(folder: str, logger: logging.Logger) -> tuple[str, dict[str, Any]]:
    """Path and content of the newest checkpoint that is whole; damaged ones are named in the log.

    Raises:
        ValueError: there is none.
    """
    newest = newest_checkpoint(folder)
    final = os.path.join(folder, f"{FINAL}.pth")  # of a run that was shorter
    further = [final] if newest != final and os.path.isfile(final) else []
    reasons = []
    for path in (newest, *numbered_before(folder, newest), *further):
        try:
            data = read_weights(path, verify=True)
        except (ValueError, FileNotFoundError) as error:
            reasons.append(str(error))
            logger.warning("Skipping checkpoint: %s", error)
            continue
        if reasons:
            logger.warning("Going on from the one before: %s", path)
        return path, data
    raise ValueError(f"no checkpoint in {folder} can be read: {'; '.join(reasons)}")


def numbered_before(folder: str, path: str) -> list[str]:
    """Numbered checkpoints of fewer iterations than ``path`` (all of them, if that has no number), the latest first.

    By number and not by time, which jumps; those of more iterations are of a run that was taken back.
    """
    limit = _number_of(path)
    numbers = {name: _number_of(name) for name in os.listdir(folder)}
    before = {
        number: name for name, number in numbers.items() if number is not None and (limit is None or number < limit)
    }
    return [os.path.join(folder, before[number]) for number in sorted(before, reverse=True)]


def remove_older(folder: str, newest: str, keep: int, logger: logging.Logger) -> None:
    """Remove all but ``keep`` numbered checkpoints up to ``newest``, which is whole on the disk; 0 removes none."""
    if keep == 0:
        return
    kept_before = keep - (_number_of(newest) is not None)
    for path in numbered_before(folder, newest)[kept_before:]:
        try:
            os.unlink(path)
        except OSError as error:
            logger.warning("SOLVER.CHECKPOINT_KEEP: %s cannot be removed (%s)", path, error.strerror)


def _number_of(path: str) -> int | None:
    match = _NUMBERED.fullmatch(os.path.basename(path))
    return int(match[1]) if match else None
