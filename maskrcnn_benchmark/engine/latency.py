"""How long inference takes: a batch, an image, and the whole."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskrcnn_benchmark.tracking import MetricSink
from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark.inference")

_PERCENTILES = (50, 90, 95, 99)
METADATA = {
    "e2e_infer_time": "s",
    "inference_perf_fps": "images/s",
    "latency_avg": "s",
    **{f"latency_{percent}": "s" for percent in _PERCENTILES},
    "latency_image_avg": "s",
    **{f"latency_image_{percent}": "s" for percent in _PERCENTILES},
}


@dataclass
class InferenceTimes:
    """How long each batch took on this process, from the batch in host memory to the detections there.

    Args:
        seconds: one entry a batch.
        images: number of images of each batch.
        warm_up: batches at the beginning that the figures leave out, where there are more.
    """

    seconds: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    warm_up: int = 0

    @property
    def first(self) -> int:
        """The first batch that counts."""
        return self.warm_up if len(self.seconds) > self.warm_up else 0

    def figures(self) -> dict[str, float]:
        """Means and percentiles in seconds: of the time of a batch as latency_avg, latency_50, _90, _95, _99.

        Under latency_image_avg, ... stands the same for the share of an image in its batch: its own time where batches
        are of one image.
        """
        seconds, images = np.array(self.seconds[self.first :]), np.array(self.images[self.first :], dtype=np.int64)
        if not len(seconds) or not images.sum():
            return {}
        figures = {}
        shares = np.repeat(seconds / np.maximum(images, 1), images)
        for prefix, values in (("latency_", seconds), ("latency_image_", shares)):
            figures[f"{prefix}avg"] = float(values.mean())
            percentiles = np.percentile(values, _PERCENTILES).tolist()
            figures |= {f"{prefix}{n}": value for n, value in zip(_PERCENTILES, percentiles, strict=True)}
        return figures


class Clock:
    """The time of the whole run, and of its part behind the batches that warm up."""

    def __init__(self, times: InferenceTimes) -> None:
        self.times = times
        self.begin = self.counted_from = time.perf_counter()
        self.end = self.begin

    def passing(self, receive: Callable[[Any], None]) -> Callable[[Any], None]:
        """The same receiver of batches, seen by the clock."""

        def pass_on(batch: Any) -> None:
            receive(batch)
            if len(self.times.seconds) == self.times.warm_up:
                self.counted_from = time.perf_counter()

        return pass_on

    def stop(self) -> None:
        """All processes are done."""
        self.end = time.perf_counter()

    def report(self, *, num_images: int, num_counted: int, sink: MetricSink | None) -> None:
        """Log and record the figures.

        Args:
            num_images: of all processes.
            num_counted: those behind the warm-up.
            sink: receives them.
        """
        devices, seconds = comm.get_world_size(), self.end - self.begin
        per_image = seconds * devices / max(num_images, 1)
        duration = datetime.timedelta(seconds=seconds)
        logger.info("Total inference time: %s (%.5f s / img per device, on %d devices)", duration, per_image, devices)
        latency = self.times.figures()
        for prefix, what in (("latency_", "a batch"), ("latency_image_", "an image")):
            own = {name.removeprefix(prefix): value for name, value in latency.items() if name.startswith(prefix)}
            text = ", ".join(f"{name}: {value:.4f}" for name, value in own.items() if not name.startswith("image"))
            if text:
                logger.info("Latency of %s in seconds (mean and percentiles): %s", what, text)
        if sink is not None:
            for metric, unit in METADATA.items():
                sink.metadata(metric, {"unit": unit})
            counted = self.end - (self.counted_from if self.times.first else self.begin)
            sink.log((), {"e2e_infer_time": seconds, "inference_perf_fps": num_counted / counted, **latency})
