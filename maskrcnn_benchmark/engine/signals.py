"""Being told to stop: SIGTERM and SIGUSR1, by a batch system that wants the machine back."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from maskrcnn_benchmark.engine.agreement import Agreement
from maskrcnn_benchmark.utils.exit_status import STOPPED as EXIT_STATUS

SIGNALS = ("SIGTERM", "SIGUSR1")  # the second does not exist on Windows


class Interrupted(BaseException):
    """The program was told to stop; like KeyboardInterrupt no Exception, so that nobody swallows it.

    Args:
        name: of the signal.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class StopSignals:
    """Turns SIGTERM and SIGUSR1 into ``Interrupted``, at once or at the end of an iteration; a context manager.

    A second signal ends the process the way signals do. Launchers and batch systems tend to say the same thing twice,
    so it must come some seconds after the first.

    Args:
        pause_s: how long after the first a signal counts as its repetition.
    """

    def __init__(self, *, pause_s: float = 5.0) -> None:
        self.pause_s = pause_s
        self.name = ""  # of the signal that came
        self._since = 0.0
        self._is_deferred = False
        self._previous: dict[int, Any] = {}
        self._agreement = Agreement()

    @property
    def requested(self) -> bool:
        """Whether this process was told to stop."""
        return bool(self.name)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # nobody else can
            for name in SIGNALS:
                if number := getattr(signal, name, None):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """In here a signal is only noted; whoever is in here asks ``agreed``."""
        with self._mode(deferred=True):
            yield
        self._raise_if_requested()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """In here, within ``deferred``, a signal raises ``Interrupted`` at once, as does one that was noted before."""
        with self._mode(deferred=False):
            self._raise_if_requested()
            yield

    def agreed(self) -> bool:
        """Whether to stop after this iteration: the same answer on every process. All of them ask after each one.

        With several processes a request counts one iteration later, see `Agreement`.
        """
        return self._agreement.reached(self.requested)

    @contextlib.contextmanager
    def exits(self) -> Iterator[None]:
        """Ends the program with ``EXIT_STATUS`` where ``Interrupted`` comes out."""
        try:
            yield
        except Interrupted:
            raise SystemExit(EXIT_STATUS) from None

    @contextlib.contextmanager
    def _mode(self, *, deferred: bool) -> Iterator[None]:
        before, self._is_deferred = self._is_deferred, deferred
        try:
            yield
        finally:
            self._is_deferred = before

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.requested:
            if time.monotonic() - self._since > self.pause_s:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.name, self._since = signal.Signals(number).name, time.monotonic()
        if not self._is_deferred:
            raise Interrupted(self.name)

    def _raise_if_requested(self) -> None:
        if self.requested:
            raise Interrupted(self.name)
