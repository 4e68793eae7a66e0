"""Work that goes on in a thread while the main one computes; whatever goes wrong there is raised in the main one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

_POLL = 1.0  # seconds between two looks whether the other side has failed


class BackgroundConsumer:
    """Hands items to a function in a thread, in order; a bounded number of them waits.

    As a context manager it ends when the last item is done; after an error in its block the waiting items are dropped.

    Args:
        consume: takes one item after the other; native code in it should release the interpreter's lock.
        capacity: items that may wait; the next one makes ``put`` wait.
    """

    def __init__(self, consume: Callable[[Any], None], *, capacity: int = 2) -> None:
        self.consume = consume
        self._items: queue.Queue[Any] = queue.Queue(capacity)
        self._error: BaseException | None = None
        self._drop = False
        self._thread = threading.Thread(target=self._run, name="background-consumer", daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        """Hand over an item.

        Raises:
            The error of an earlier item.
        """
        while True:
            self._raise()
            try:
                self._items.put((item,), timeout=_POLL)
                return
            except queue.Full:
                continue

    def close(self) -> None:
        """Wait until all items are done.

        Raises:
            The error of an item.
        """
        self._end()
        self._raise()

    def __enter__(self) -> BackgroundConsumer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self._drop = True
            self._end()

    def _end(self) -> None:
        while self._thread.is_alive():
            try:
                self._items.put(None, timeout=_POLL)
                break
            except queue.Full:
                continue
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            self._drop = True
            raise error

    def _run(self) -> None:
        while (entry := self._items.get()) is not None:
            if self._drop or self._error is not None:
                continue
            try:
                self.consume(*entry)
            except BaseException as error:
                self._error = error


class BackgroundTask:
    """One piece of work at a time in a thread; its result is handed over in the thread that asks for it."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._done: Callable[[Any], None] = lambda result: None
        self._outcome: tuple[Any, BaseException | None] | None = None

    def start(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Begin, after the work before has ended.

        Args:
            work: runs in the thread.
            done: is given its result, by the ``poll`` or ``wait`` that finds it.
        """
        self.wait()

        def run() -> None:
            try:
                self._outcome = work(), None
            except BaseException as error:
                self._outcome = None, error

        self._done = done
        self._thread = threading.Thread(target=run, name="background-task")
        self._thread.start()

    def poll(self) -> None:
        """Hand the result over if there is one.

        Raises:
            The error of the work.
        """
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait for the work, if there is any, and hand its result over.

        Raises:
            The error of the work.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        result, error = self._outcome
        self._outcome = None
        if error is not None:
            raise error
        self._done(result)
