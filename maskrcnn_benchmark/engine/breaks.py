"""What comes between two iterations: a callback that may evaluate, and being told to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from torch import nn

from maskrcnn_benchmark.engine.losses import LossBuffer
from maskrcnn_benchmark.engine.saver import Saver
from maskrcnn_benchmark.engine.signals import Interrupted, StopSignals
from maskrcnn_benchmark.utils import comm


class Breaks:
    """Calls the callback of a training loop, and ends the loop with everything saved when the process is to stop.

    Args:
        callback: called as ``f(iteration=...)``; True ends the training. A signal interrupts it at once.
        evaluates_after: whether the callback takes its time after an iteration.
        stop: what the process was told.
        model: in training mode whenever this is left.
        saver: writes the state.
    """

    def __init__(
        self,
        callback: Callable[[int], bool] | None,
        evaluates_after: Callable[[int], bool] | None,
        stop: StopSignals,
        model: nn.Module,
        saver: Saver,
    ) -> None:
        self.callback = callback
        self.evaluates_after = evaluates_after or (lambda iteration: False)
        self.stop = stop
        self.model = model
        self.saver = saver
        self.is_stopping = False

    def at_resume(self, iteration: int) -> bool:
        """Call back first thing where an evaluation was due: the interruption may have come before or within it."""
        return iteration > 0 and self.evaluates_after(iteration) and self._call(iteration)

    def is_asked_to_stop(self) -> bool:
        """Whether the run ends after the next update. Every process asks after every iteration."""
        self.is_stopping = self.stop.agreed() or self.is_stopping
        return self.is_stopping

    def leave(self) -> NoReturn:
        """End the loop, on every process; the state is saved."""
        comm.synchronize()  # the one that writes has written
        raise Interrupted(self.stop.name)

    def after(self, iteration: int, *, updated: bool, buffer: LossBuffer) -> bool:
        """Call back after an iteration; True ends the training.

        Args:
            iteration: the last one done.
            updated: whether it ended with an update; otherwise there are gradients that no checkpoint holds.
            buffer: empty where the losses of the iteration were read.

        Raises:
            Interrupted: within the callback; the state is saved, where there is all of it.
        """
        try:
            return self._call(iteration)
        except Interrupted:
            if updated and not buffer.rows and self.saver.last_saved < iteration:
                self.saver.save(iteration, at_once=True)
            self.saver.wait()
            raise

    def _call(self, iteration: int) -> bool:
        if self.callback is None:
            return False
        with self.stop.at_once():
            ends = bool(self.callback(iteration=iteration))  # type: ignore[call-arg]  (its name is published)
        # It evaluated; of a model that is wrapped for several processes it knows the inside alone.
        if not getattr(self.model, "module", self.model).training:
            self.model.train()
        return ends
