"""monitor.txt: what a record is, and what has to hold between one and the next."""

from __future__ import annotations

import itertools
import re
import threading
from dataclasses import dataclass
from pathlib import Path

PENDING, RUNNING, DONE, ERROR = 1, 2, 3, 4
_POLL = 0.02  # seconds; YMIR's own is slower


@dataclass(frozen=True)
class Record:
    """One state of the file."""

    task_id: str
    timestamp: float
    percent: float
    state: int
    code: int | None = None
    message: str = ""
    stack: tuple[str, ...] = ()


def parse(text: str) -> Record:
    """A record.

    Raises:
        ValueError: the text is none, as an empty or half-written file is.
    """
    first, *stack = text.splitlines() or [""]
    fields = first.split("\t", 5)
    if not 4 <= len(fields) or not text.endswith("\n"):
        raise ValueError(f"monitor.txt has no record: {text!r}")
    task_id, timestamp, percent, state, *rest = fields
    if not re.fullmatch(r"\w+", task_id) or not re.fullmatch(r"\d{10}(\.\d+)?", timestamp):
        raise ValueError(f"task or time is wrong in {first!r}")
    if not re.fullmatch(r"[01]\.\d\d", percent) or float(percent) > 1:
        raise ValueError(f"the percentage is wrong in {first!r}")
    if state not in ("1", "2", "3", "4") or (rest and not re.fullmatch(r"\d+", rest[0])):
        raise ValueError(f"state or code is wrong in {first!r}")
    if len(stack) > 99:
        raise ValueError(f"{len(stack)} lines of a stack; 99 are read")
    code = int(rest[0]) if rest else None
    return Record(task_id, float(timestamp), float(percent), int(state), code, "".join(rest[1:]), tuple(stack))


def check_sequence(records: list[Record], task_id: str) -> None:
    """Executors write running and error alone; progress never turns back; an error is the last word."""
    assert records, "monitor.txt was never written"
    assert {record.task_id for record in records} == {task_id}
    for before, after in itertools.pairwise(records):
        assert after.percent >= before.percent, f"progress turned back: {before} then {after}"
        assert after.timestamp >= before.timestamp, f"time turned back: {before} then {after}"
        assert before.state != ERROR, f"something was written after the error: {after}"
    assert {record.state for record in records} <= {RUNNING, ERROR}


class Watch:
    """Reads a monitor.txt while a task runs; ``records`` are what it saw, each once, ``faults`` what was no record."""

    def __init__(self, path: Path) -> None:
        self.records: list[Record] = []
        self.faults: list[str] = []
        self._path, self._last = path, path.read_text(encoding="utf-8")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _poll(self) -> None:
        while not self._stop.wait(_POLL):
            self._look()

    def _look(self) -> None:
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError as error:
            self.faults.append(str(error))
            return
        if text == self._last:
            return
        self._last = text
        try:
            self.records.append(parse(text))
        except ValueError as error:
            self.faults.append(str(error))
