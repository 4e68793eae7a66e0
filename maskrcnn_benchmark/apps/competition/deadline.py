"""TEST.MAX_TIME: when to stop detecting, so that what is there can still be written."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

_WINDOW = 20  # batches whose median says how long the next one takes
_MARGIN = 0.002  # of the budget, and at least so many seconds: the end of the program
_LEAST_MARGIN = 1.0
_END = object()


class Deadline:
    """Says whether there is time for another batch.

    Args:
        budget: seconds; 0: no limit.
        clock: seconds of them that are used.

    Attributes:
        write_seconds: what the longest write of the results so far took.
    """

    def __init__(self, budget: float, clock: Callable[[], float]) -> None:
        self.budget = budget
        self.clock = clock
        self.write_seconds = 0.0
        self._seconds: deque[float] = deque(maxlen=_WINDOW)

    def allows_another(self) -> bool:
        """Whether a batch, and writing the results once more, fit into what is left."""
        if not self.budget:
            return True
        reserve = 2 * self.write_seconds + max(self.budget * _MARGIN, _LEAST_MARGIN)
        expected = statistics.median(self._seconds) if self._seconds else 0.0
        return self.clock() + expected + reserve <= self.budget

    def timed(self, write: Callable[[], Any]) -> Any:
        """Call something that writes results, and remember how long it took; gives its result."""
        begin = self.clock()
        result = write()
        self.write_seconds = max(self.write_seconds, self.clock() - begin)
        return result

    def add_batch(self, seconds: float) -> None:
        """A batch took so long."""
        self._seconds.append(seconds)


class TimedLoader:
    """A loader that ends when the time does, or when enough was seen.

    Args:
        loader: yields batches; has ``dataset``.
        deadline, wants_more: are asked before each batch.
    """

    def __init__(self, loader: Any, deadline: Deadline, wants_more: Callable[[], bool] = lambda: True) -> None:
        self.loader = loader
        self.deadline = deadline
        self.wants_more = wants_more
        self.dataset = loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while self.wants_more() and self.deadline.allows_another():
            begin = self.deadline.clock()
            batch = next(batches, _END)
            if batch is _END:
                return
            yield batch
            self.deadline.add_batch(self.deadline.clock() - begin)
