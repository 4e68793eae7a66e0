"""What a receiver of figures looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Step = str | Sequence[int]
""""PARAMETER" for settings, (iteration,) or (iteration, epoch) in the run, () for figures of the whole run."""


class MetricSink(Protocol):
    """A receiver of figures; the loops know no more of it than this."""

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Announce a metric with what is known of it, such as {"unit": "s"}."""

    def log(self, step: Step, data: Mapping[str, Any], *, text: Mapping[str, str] | None = None) -> None:
        """Take figures.

        Args:
            step: where in the run.
            data: name -> number or string.
            text: the same figures as the published text, for the receivers that keep text.
        """

    def close(self) -> None:
        """Write out what is left."""


class SinkGroup:
    """Several receivers as one; none at all on processes that do not write.

    Args:
        sinks: the receivers.
    """

    def __init__(self, sinks: Sequence[MetricSink] = ()) -> None:
        self.sinks = tuple(sinks)

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Announce a metric to each."""
        for sink in self.sinks:
            sink.metadata(metric, metadata)

    def log(self, step: Step, data: Mapping[str, Any], *, text: Mapping[str, str] | None = None) -> None:
        """Hand the figures to each."""
        for sink in self.sinks:
            sink.log(step, data, text=text)

    def close(self) -> None:
        """Close each."""
        for sink in self.sinks:
            sink.close()
