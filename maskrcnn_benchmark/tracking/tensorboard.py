"""Figures as TensorBoard events."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maskrcnn_benchmark.tracking.sink import Step

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardSink:
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
        if self.writer is None:
            self.writer = self.make_writer()
        for name, value in data.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, self.last_iteration)

    def rewind(self, iteration: int) -> None:
        """Have TensorBoard leave out what earlier files hold of later iterations."""
        self.make_writer = functools.partial(self.make_writer, purge_step=iteration + 1)
        self.last_iteration = iteration

    def close(self) -> None:
        """Write out what is left."""
        if self.writer is not None:
            self.writer.close()
