"""Losses of the last iterations, kept where they were computed and read together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.utils import comm


class LossBuffer:
    """Collects the losses of each iteration on the device; ``read`` fetches them all in one transfer.

    Args:
        image_ids: data set index -> image id, for the message about a loss that is not finite; None: indices are used.
    """

    def __init__(self, image_ids: Mapping[int, Any] | None = None) -> None:
        self.image_ids = image_ids
        self.names: list[str] = []
        self.rows: list[Tensor] = []
        self.seen: list[tuple[int, Sequence[int]]] = []

    def append(self, iteration: int, losses: Mapping[str, Tensor], indices: Sequence[int]) -> None:
        """Take the losses (0-d tensors) of one iteration over the images with these data set indices; no sync."""
        self.names = sorted(losses)
        self.rows.append(torch.stack([losses[name].detach().float() for name in self.names]))
        self.seen.append((iteration, indices))

    def read(self) -> list[dict[str, float]]:
        """Give the losses of each iteration since the last call, averaged over processes, and forget them.

        ``loss`` is the sum of the others. This is the loop's one synchronisation with the device; every process calls
        it in the same iteration.

        Raises:
            FloatingPointError: a loss is not finite; loss, iteration, process and images are named.
        """
        if not self.rows:
            return []
        local = torch.stack(self.rows)  # [iterations, losses]
        means = comm.reduce_tensor(local).tolist()
        if not all(math.isfinite(value) for row in means for value in row):
            raise FloatingPointError(self._describe_failure(local.tolist()))
        self.rows, self.seen = [], []
        return [{"loss": math.fsum(row), **dict(zip(self.names, row, strict=True))} for row in means]

    def _describe_failure(self, local: list[list[float]]) -> str:
        mine = None
        for (iteration, indices), row in zip(self.seen, local, strict=True):
            wrong = [
                f"{name} is {value}" for name, value in zip(self.names, row, strict=True) if not math.isfinite(value)
            ]
            if wrong:
                ids = [self.image_ids[index] if self.image_ids is not None else index for index in indices]
                mine = (iteration, comm.get_rank(), " and ".join(wrong), ids)
                break
        # Sums over processes were not finite, so at least one process has found its own.
        found = [entry for entry in comm.all_gather(mine) if entry is not None]
        if not found:
            return f"the mean of the losses over processes overflows at iteration {self.seen[0][0]}"
        iteration, rank, what, ids = min(found)
        return (
            f"{what} at iteration {iteration} (process {rank}, image ids {', '.join(map(str, ids))}); the last "
            "checkpoint is from before it; a lower SOLVER.BASE_LR or a longer warm-up is the usual remedy"
        )
