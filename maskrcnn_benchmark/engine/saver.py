"""When a run is saved, and what of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from maskrcnn_benchmark.checkpoint.history import FINAL
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.progress import TrainProgress


class Saver:
    """Writes the checkpoints of a run when they are due.

    A checkpoint between two updates would lose the gradients collected so far, so it waits for the next update.

    Args:
        checkpointer: ``save``, ``try_save``, ``wait`` and ``source`` of Checkpointer; None saves nothing.
        period: iterations between checkpoints; 0 for the last one alone.
        arguments: goes into each checkpoint, with its ``iteration``, ``scaler`` and ``meters`` brought up to date.
        model: its weights must be finite.
        precision: its loss scale is saved.
        progress: its loss series are saved.
        in_background: write while training goes on.
        before: called before a checkpoint is written: what belongs to its iteration and those before must be on the
            disk then, since a run that goes on from it does them not again. Not called when there is no time for it.
    """

    def __init__(
        self,
        checkpointer: Any,
        period: int,
        arguments: dict[str, Any],
        model: nn.Module,
        precision: Precision,
        progress: TrainProgress,
        *,
        in_background: bool = False,
        before: Callable[[], object] | None = None,
    ) -> None:
        self.checkpointer = checkpointer
        self.period = period
        self.arguments = arguments
        self.model = model
        self.precision = precision
        self.progress = progress
        self.in_background = in_background
        self.before = before
        self.last_saved = arguments["iteration"]

    def is_due(self, iteration: int, weights_changed: bool) -> bool:
        """Whether a period is over, and the weights have just changed."""
        return (
            self.checkpointer is not None
            and self.period > 0
            and weights_changed
            and iteration // self.period > self.last_saved // self.period
        )

    def save(self, iteration: int, *, final: bool = False, at_once: bool = False) -> None:
        """Write the state after an iteration. One of a period that cannot be written is left out, with a message.

        Args:
            iteration: the last one done.
            final: the run ends; model_final is written.
            at_once: the process is to end; the checkpoint is on the disk when this returns.

        Raises:
            FloatingPointError: the weights are not finite; nothing is written.
            OSError: a checkpoint that the end of the run asks for cannot be written.
        """
        due = self.is_due(iteration, True)
        self.last_saved = iteration
        self.arguments.update(
            iteration=iteration, scaler=self.precision.scaler.state_dict(), meters=self.progress.state_dict()
        )
        if self.checkpointer is None:
            return
        if self.before is not None and not at_once:
            self.before()
        # A finite loss can still have had a gradient that is not.
        if not all(torch.stack([p.detach().isfinite().all() for p in self.model.parameters()]).tolist()):
            raise FloatingPointError(f"the weights are no longer finite at iteration {iteration}; nothing is saved")
        name = f"model_{iteration:07d}"
        if at_once:
            self.checkpointer.save(name, **self.arguments)
        elif due:
            self.checkpointer.try_save(name, in_background=self.in_background and not final, **self.arguments)
        if final:
            self.checkpointer.save(FINAL, **self.arguments)

    def complete(self, iteration: int) -> None:
        """Write model_final of a run that was interrupted after its last iteration, and has not got it."""
        if self.checkpointer is not None and os.path.basename(self.checkpointer.source) != f"{FINAL}.pth":
            self.save(iteration, final=True)

    def wait(self) -> None:
        """Return when no checkpoint is being written."""
        if self.checkpointer is not None:
            self.checkpointer.wait()
