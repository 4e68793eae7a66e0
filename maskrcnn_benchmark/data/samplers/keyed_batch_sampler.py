"""Batches of keys instead of indices, so that a worker knows the epoch of the sample it augments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch.utils.data import Sampler

from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.data.samplers.iteration_based_batch_sampler import IterationBasedBatchSampler


class KeyedBatchSampler(Sampler[list[SampleKey]]):
    """Turns the indices of another batch sampler into :class:`SampleKey`.

    Args:
        batch_sampler: an :class:`IterationBasedBatchSampler`, whose epochs are used, or any other batch sampler, whose
            batches all belong to epoch 0.
    """

    def __init__(self, batch_sampler: Iterable[list[int]]) -> None:
        self.batch_sampler = batch_sampler

    def __iter__(self) -> Iterator[list[SampleKey]]:
        if isinstance(self.batch_sampler, IterationBasedBatchSampler):
            batches = self.batch_sampler.epoch_batches()
        else:
            batches = ((0, batch) for batch in self.batch_sampler)
        return ([SampleKey(epoch, index) for index in batch] for epoch, batch in batches)

    def __len__(self) -> int:
        return len(self.batch_sampler)
