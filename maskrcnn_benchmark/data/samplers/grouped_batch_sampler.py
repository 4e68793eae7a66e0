"""Batches whose samples belong together, for example all upright or all lying images: less padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class GroupedBatchSampler(Sampler[list[int]]):
    """Cuts the order of another sampler into batches of one group each, as close to that order as can be.

    Within a group the order of the sampler is kept; the batches come in the order of their first samples.

    Args:
        sampler: yields sample indices.
        group_ids: the group of every sample of the data set.
        batch_size: samples a batch.
        drop_uneven: leave out the batches that are smaller because their group ran out of samples.

    Raises:
        ValueError: when ``batch_size`` is not positive.
    """

    def __init__(
        self, sampler: Iterable[int], group_ids: Sequence[int], batch_size: int, drop_uneven: bool = False
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.sampler = sampler
        self.group_ids = np.asarray(group_ids)
        self.batch_size = batch_size
        self.drop_uneven = drop_uneven

    def _batches(self) -> list[list[int]]:
        order = np.fromiter(self.sampler, dtype=np.int64)
        groups = self.group_ids[order]
        batches: list[tuple[int, list[int]]] = []
        for group in np.unique(groups):
            positions = np.flatnonzero(groups == group)
            members = order[positions].tolist()
            for begin in range(0, len(members), self.batch_size):
                batch = members[begin : begin + self.batch_size]
                if len(batch) == self.batch_size or not self.drop_uneven:
                    batches.append((int(positions[begin]), batch))
        return [batch for _, batch in sorted(batches)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches())

    def __len__(self) -> int:
        """Number of batches in the sampler's present epoch."""
        return len(self._batches())
