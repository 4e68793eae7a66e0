"""The share of one process in the order of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized

import numpy as np
from torch.utils.data import Sampler

from maskrcnn_benchmark.data.keyed import keyed_permutation
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size


class DistributedSampler(Sampler[int]):
    """Gives each process a contiguous part of the (shuffled) order of an epoch; also right for a single process.

    Args:
        dataset: anything with a length.
        num_replicas: number of processes; None asks the process group.
        rank: this process; None asks the process group.
        shuffle: a new order each epoch; False keeps 0, 1, 2, ...
        seed: with the epoch, the key of the order.
        pad: repeat samples from the start of the order so that all parts have one length, as training wants it.
            False gives parts that differ by at most one and hold every sample exactly once, as evaluation wants it.
        samples_left: the order of epochs of which a part has been seen already, see LeftOver.

    Raises:
        ValueError: when ``rank`` is not one of ``num_replicas``.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        *,
        seed: int = 0,
        pad: bool = True,
        samples_left: Mapping[int, np.ndarray] | None = None,
    ) -> None:
        self.dataset = dataset
        self.num_replicas = get_world_size() if num_replicas is None else num_replicas
        self.rank = get_rank() if rank is None else rank
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(f"rank must lie in 0 .. {self.num_replicas - 1}, got {self.rank}")
        self.shuffle = shuffle
        self.seed = seed
        self.pad = pad
        self.samples_left = samples_left or {}
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self.epoch = epoch

    def _bounds(self) -> tuple[int, int]:
        total = len(self.samples_left.get(self.epoch, self.dataset))
        if self.pad:
            share = -(-total // self.num_replicas)
            return self.rank * share, (self.rank + 1) * share
        return self.rank * total // self.num_replicas, (self.rank + 1) * total // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        total = len(self.dataset)
        if self.epoch in self.samples_left:
            order = self.samples_left[self.epoch]
            total = len(order)
        elif self.shuffle:
            order = keyed_permutation(self.seed, self.epoch, length=total)
        else:
            order = np.arange(total)
        begin, end = self._bounds()
        # np.take wraps round, which is the padding: also a data set smaller than the number of processes is repeated.
        return iter(np.take(order, np.arange(begin, end), mode="wrap").tolist() if total else ())

    def __len__(self) -> int:
        begin, end = self._bounds()
        return end - begin
