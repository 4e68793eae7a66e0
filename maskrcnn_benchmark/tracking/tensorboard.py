"""Figures as TensorBoard events."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from maskrcnn_benchmark.tracking.sink import Evaluation, MetricSink, Step

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardSink(MetricSink):
    """Write every number under its name; needs the package tensorboard. The file is made with the first number.

    Args:
        folder: where the event files go.

    Raises:
        ImportError: tensorboard is not installed; the message says how to get it.
    """

    def __init__(self, folder: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard events need the package tensorboard: pip install tensorboard") from error
        self.make_writer = functools.partial(SummaryWriter, folder)
        self.writer: SummaryWriter | None = None
        self.last_iteration = 0

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Event files have no place for units."""

    def log(self, step: Step, data: Mapping[str, Any], *, text: Mapping[str, str] | None = None) -> None:
        """Write the numbers in ``data`` at the step's iteration; figures of the whole run at the last one seen."""
        if isinstance(step, str):
            return
        self.last_iteration = step[0] if step else self.last_iteration
        writer = self._open()
        for name, value in data.items():
            if isinstance(value, int | float):
                writer.add_scalar(name, value, self.last_iteration)

    def evaluation(self, figures: Evaluation, *, iteration: int | None = None) -> None:
        """Write the figures as bbox/AP and so on."""
        step = self.last_iteration if iteration is None else iteration
        self.log((step,), {f"{task}/{name}": value for task, part in figures.items() for name, value in part.items()})

    def figure(self, name: str, path: str) -> None:
        """Write a picture, as the file has it."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        encoded = Path(path).read_bytes()
        height, width, channels = cv2.imread(path, cv2.IMREAD_COLOR).shape
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encoded)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._open().file_writer.add_summary(summary, self.last_iteration)

    def rewind(self, iteration: int) -> None:
        """Have TensorBoard leave out what earlier files hold of later iterations."""
        self.make_writer = functools.partial(self.make_writer, purge_step=iteration + 1)
        self.last_iteration = iteration

    def close(self) -> None:
        """Write out what is left."""
        if self.writer is not None:
            self.writer.close()

    def _open(self) -> SummaryWriter:
        if self.writer is None:
            self.writer = self.make_writer()
        return self.writer
