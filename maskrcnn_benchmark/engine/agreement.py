"""Whether one process of a run has seen something that all have to act on, asked after each iteration."""

from __future__ import annotations

import torch
import torch.distributed as dist

from maskrcnn_benchmark.utils import comm


class Agreement:
    """The same answer on every process, without waiting.

    With several processes what one has seen counts one iteration later: they exchange it while they compute.
    """

    def __init__(self) -> None:
        self._flag: torch.Tensor | None = None
        self._exchange: dist.Work | None = None

    def reached(self, seen: bool) -> bool:
        """Whether a process has seen it. All of them ask after each iteration.

        Args:
            seen: what this process knows.
        """
        if comm.get_world_size() == 1:
            return seen
        verdict = False
        if self._exchange is not None and self._flag is not None:
            self._exchange.wait()
            verdict = bool(self._flag.item())
        self._flag = torch.tensor(float(seen))  # in host memory: goes over gloo, and no GPU is waited for
        self._exchange = dist.all_reduce(self._flag, async_op=True)
        return verdict
