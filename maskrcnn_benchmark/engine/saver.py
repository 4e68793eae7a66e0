"""When a run is saved, and what of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.progress import TrainProgress


class Saver:
    """Writes the checkpoints of a run when they are due.

    A checkpoint between two updates would lose the gradients collected so far, so it waits for the next update.
    """

    def __init__(
        self,
        checkpointer: Any,
        period: int,
        arguments: dict[str, Any],
        model: nn.Module,
        precision: Precision,
        progress: TrainProgress,
    ) -> None:
        self.checkpointer = checkpointer
        self.period = period
        self.arguments = arguments
        self.model = model
        self.precision = precision
        self.progress = progress
        self.last_saved = arguments["iteration"]

    def is_due(self, iteration: int, weights_changed: bool) -> bool:
        return (
            self.checkpointer is not None
            and self.period > 0
            and weights_changed
            and iteration // self.period > self.last_saved // self.period
        )

    def save(self, iteration: int, *, final: bool) -> None:
        due = self.is_due(iteration, True)
        self.last_saved = iteration
        self.arguments.update(
            iteration=iteration, scaler=self.precision.scaler.state_dict(), meters=self.progress.state_dict()
        )
        if self.checkpointer is None:
            return
        # A finite loss can still have had a gradient that is not.
        if not all(torch.stack([p.detach().isfinite().all() for p in self.model.parameters()]).tolist()):
            raise FloatingPointError(f"the weights are no longer finite at iteration {iteration}; nothing is saved")
        if due:
            self.checkpointer.save(f"model_{iteration:07d}", **self.arguments)
        if final:
            self.checkpointer.save("model_final", **self.arguments)
