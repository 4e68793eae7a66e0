"""What a tracker is: a program, often elsewhere, that keeps the figures of many runs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from maskrcnn_benchmark.checkpoint.files import write_atomically

logger = logging.getLogger("maskrcnn_benchmark.trainer")

IDS_FILE = "trackers.json"


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run.

    Args:
        project: what many experiments belong to.
        experiment: whose runs are laid side by side; "" for none.
        name: of the run.
        tags: words to find it by.
        settings: every config value by its dotted key, without secrets.
        folder: OUTPUT_DIR, "" for none.
        run_id: of the tracker's run that goes on; None begins a new one.
        timeout: seconds that the tracker has at the end.
    """

    project: str
    experiment: str
    name: str
    tags: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    run_id: str | None = None
    timeout: float = 60.0


class Tracker(Protocol):
    """One backend. Every method may be slow and may raise anything: it is called in a thread of its own.

    Attributes:
        name: as in TRACKING.BACKENDS.
    """

    name: str

    def start(self, run: TrackedRun) -> str | None:
        """Begin a run, or go on with ``run.run_id``; returns its id, None where it cannot go on later."""

    def metrics(self, values: Mapping[str, float], iteration: int | None) -> None:
        """Take numbers, at an iteration or of the whole run. They may be nan or infinite."""

    def figure(self, name: str, path: str, iteration: int) -> None:
        """Take a picture, a PNG or JPEG file."""

    def artifact(self, name: str, path: str) -> None:
        """Take a file; it may be gone when this returns."""

    def finish(self, status: str) -> None:
        """The run has ended: "finished", "interrupted" or "failed". Returns when everything has been sent."""


class RunIds:
    """OUTPUT_DIR/trackers.json: which run of each tracker belongs to the run in this folder.

    Args:
        folder: OUTPUT_DIR; "" keeps nothing.
    """

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, IDS_FILE) if folder else ""

    def find(self, tracker: str) -> str | None:
        """The run of a tracker, if there was one; a file that cannot be read counts as none."""
        found = self._read().get(tracker)
        return found if isinstance(found, str) else None

    def keep(self, tracker: str, run_id: str | None) -> None:
        """Write down the run of a tracker; None takes it out.

        Raises:
            OSError: the file cannot be written.
        """
        before = self._read()
        ids = {name: each for name, each in {**before, tracker: run_id}.items() if each is not None}
        if self.path and ids != before:
            text = json.dumps(ids, indent=2, sort_keys=True) + "\n"
            write_atomically(self.path, lambda file: file.write(text.encode()))

    def _read(self) -> dict[str, Any]:
        if not self.path or not os.path.exists(self.path):
            return {}
        try:
            with open(self.path, encoding="utf-8") as file:
                ids = json.load(file)
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read (%s): the trackers begin new runs", self.path, error)
            return {}
        return ids if isinstance(ids, dict) else {}
