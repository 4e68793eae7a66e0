"""Losses of the last iterations, kept where they were computed and read together."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.engine.nonfinite import Failure, Response
from maskrcnn_benchmark.tracking.trace import Trace
from maskrcnn_benchmark.utils import comm

_NO_UPDATE, _DROPPED = -1.0, 1.0
_HISTORY = 20  # iterations whose losses go into a debug bundle


class LossBuffer:
    """Collects the losses of each iteration on the device; ``read`` fetches them all in one transfer.

    Args:
        image_ids: data set index -> image id, for the message about a loss that is not finite; None: indices are used.
        response: what is done about losses and gradients that are not finite.
        trace: is told of every iteration that is read.

    Attributes:
        history: (iteration, mean losses by name) of the last iterations that were read, whatever they are.
    """

    def __init__(
        self,
        image_ids: Mapping[int, Any] | None = None,
        response: Response | None = None,
        *,
        trace: Trace | None = None,
    ) -> None:
        self.image_ids = image_ids
        self.response = response or Response()
        self.trace = trace or Trace()
        self.names: list[str] = []
        self.rows: list[Tensor] = []
        self.seen: list[tuple[int, Sequence[int]]] = []
        self.history: deque[tuple[int, dict[str, float]]] = deque(maxlen=_HISTORY)
        self._loss_was_bad = False  # since the last update

    def append(
        self,
        iteration: int,
        losses: Mapping[str, Tensor],
        indices: Sequence[int],
        *,
        dropped: Tensor | None = None,
    ) -> None:
        """Take the losses (0-d tensors) of one iteration over the images with these data set indices; no sync.

        Args:
            iteration: its number.
            losses: of this process.
            indices: of its images.
            dropped: whether the update after it was dropped, 0-d, the same on every process; None: there was none.
        """
        self.names = sorted(losses)
        values = [losses[name].detach().float() for name in self.names]
        values.append(dropped.float() if dropped is not None else torch.full_like(values[0], _NO_UPDATE))
        self.rows.append(torch.stack(values))
        self.seen.append((iteration, indices))

    def read(self) -> list[dict[str, float]]:
        """Give the losses of each iteration since the last call, averaged over processes, and forget them.

        ``loss`` is the sum of the others. Iterations with a loss that is not finite are left out; ``response`` is told
        of them. This is the loop's one synchronisation with the device; every process calls it in the same iteration.

        Raises:
            FloatingPointError: a loss or a gradient is not finite, and the run has to end; loss, iteration, process and
                images are named.
        """
        if not self.rows:
            return []
        local = torch.stack(self.rows)  # [iterations, losses + 1]
        means = comm.reduce_tensor(local).tolist()
        seen, self.rows, self.seen = self.seen, [], []
        rows, read, bad, without_gradient = [], [], False, []
        for (iteration, _), (*values, state) in zip(seen, means, strict=True):
            row = {"loss": math.fsum(values) if all(map(math.isfinite, values)) else math.nan}
            row.update(zip(self.names, values, strict=True))
            read.append((iteration, row))
            is_finite = math.isfinite(row["loss"])
            if is_finite:
                rows.append(row)
            self._loss_was_bad |= not is_finite
            if state != _NO_UPDATE:
                self.response.count(dropped=state == _DROPPED)
                if state == _DROPPED and not self._loss_was_bad:
                    without_gradient.append(iteration)
                self._loss_was_bad = False
            bad |= not is_finite or state == _DROPPED
        self.history.extend(read)
        self.trace.write(read)
        if bad:
            self.response(self._find_failures(seen, local.tolist(), without_gradient))
        return rows

    def _find_failures(
        self, seen: list[tuple[int, Sequence[int]]], local: list[list[float]], without_gradient: list[int]
    ) -> list[Failure]:
        """What every process found, the first process's word for each iteration; every process calls it."""
        mine = []
        for (iteration, indices), (*values, _) in zip(seen, local, strict=True):
            wrong = [
                f"{name} is {value}" for name, value in zip(self.names, values, strict=True) if not math.isfinite(value)
            ]
            if not wrong and iteration in without_gradient:
                wrong = ["the gradients are not finite, although the losses are,"]
            if wrong:
                ids = [str(self.image_ids[index] if self.image_ids is not None else index) for index in indices]
                mine.append(Failure(iteration, comm.get_rank(), " and ".join(wrong), tuple(indices), tuple(ids)))
        found: dict[int, Failure] = {}
        for failure in (failure for part in comm.all_gather(mine) for failure in part):
            found.setdefault(failure.iteration, failure)
        if found:
            return [found[iteration] for iteration in sorted(found)]
        iteration, indices = seen[0]
        return [Failure(iteration, 0, "the mean of the losses over processes overflows", tuple(indices), ())]
