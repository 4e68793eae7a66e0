"""What a receiver of figures looks like."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

logger = logging.getLogger("maskrcnn_benchmark.trainer")

Step = str | Sequence[int]
""""PARAMETER" for settings, (iteration,) or (iteration, epoch) in the run, () for figures of the whole run."""


Evaluation = Mapping[str, Mapping[str, float]]
"""Figures by task, such as {"bbox": {"AP": 0.31, "AP50": 0.5}, "segm": {"AP": 0.29}}."""


class MetricSink(Protocol):
    """A receiver of figures; the loops know no more of it than this.

    One that inherits from this class has to take figures only: what it has no place for is then left out.
    """

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Announce a metric with what is known of it, such as {"unit": "s"}."""

    def log(self, step: Step, data: Mapping[str, Any], *, text: Mapping[str, str] | None = None) -> None:
        """Take figures.

        Args:
            step: where in the run.
            data: name -> number or string.
            text: the same figures as the published text, for the receivers that keep text.
        """

    def rewind(self, iteration: int) -> None:
        """Training goes on after this iteration; figures of later ones, from before a break, will come again."""

    def evaluation(self, figures: Evaluation, *, iteration: int | None = None) -> None:
        """Take the figures of an evaluation after an iteration; None: at the end of the run."""

    def figure(self, name: str, path: str) -> None:
        """Take a picture at the end of the run: a PNG or JPEG file, under a name with slashes for groups."""

    def artifact(self, name: str, path: str) -> None:
        """Take a file that the run has written."""

    def close(self) -> None:
        """Write out what is left."""

    def finish(self, status: str) -> None:
        """The run has ended: "finished", "interrupted" (it may go on later) or "failed". Write out what is left."""
        self.close()


class SinkGroup(MetricSink):
    """Several receivers as one; none at all on processes that do not write.

    A receiver that cannot write, on a full disk for instance, says so once and is tried again with the next figures:
    training does not end for it.

    Args:
        sinks: the receivers.
    """

    def __init__(self, sinks: Sequence[MetricSink] = ()) -> None:
        self.sinks = tuple(sinks)
        self._failing: set[MetricSink] = set()

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Announce a metric to each."""
        for sink in self.sinks:
            sink.metadata(metric, metadata)

    def log(self, step: Step, data: Mapping[str, Any], *, text: Mapping[str, str] | None = None) -> None:
        """Hand the figures to each."""
        for sink in self.sinks:
            self._try(sink, lambda sink=sink: sink.log(step, data, text=text))

    def rewind(self, iteration: int) -> None:
        """Take each back to an iteration."""
        for sink in self.sinks:
            sink.rewind(iteration)

    def evaluation(self, figures: Evaluation, *, iteration: int | None = None) -> None:
        """Hand the figures of an evaluation to each."""
        for sink in self.sinks:
            self._try(sink, lambda sink=sink: sink.evaluation(figures, iteration=iteration))

    def figure(self, name: str, path: str) -> None:
        """Hand a picture to each."""
        for sink in self.sinks:
            self._try(sink, lambda sink=sink: sink.figure(name, path))

    def artifact(self, name: str, path: str) -> None:
        """Hand a file to each."""
        for sink in self.sinks:
            self._try(sink, lambda sink=sink: sink.artifact(name, path))

    def close(self) -> None:
        """Close each."""
        for sink in self.sinks:
            self._try(sink, sink.close)

    def finish(self, status: str) -> None:
        """Tell each how the run has ended."""
        for sink in self.sinks:
            self._try(sink, lambda sink=sink: sink.finish(status))

    def _try(self, sink: MetricSink, call: Callable[[], None]) -> None:
        try:
            call()
            self._failing.discard(sink)
        except OSError as error:
            if sink not in self._failing:
                logger.error("%s cannot write (%s); training goes on", type(sink).__name__, error.strerror or error)
            self._failing.add(sink)
