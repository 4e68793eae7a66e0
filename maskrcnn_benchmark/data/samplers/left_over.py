"""Which samples are left of the epochs that a run has begun, when its number of processes changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from maskrcnn_benchmark.data.keyed import keyed_permutation
from maskrcnn_benchmark.data.samplers.iteration_based_batch_sampler import IterationBasedBatchSampler
from maskrcnn_benchmark.solver.world_size import Stretch


@dataclass(frozen=True)
class LeftOver:
    """What training still has to see.

    Args:
        samples: for each epoch that was begun and not ended, its samples that nobody has seen, in the epoch's order.
        next_epoch: the first epoch that was not begun.
    """

    samples: Mapping[int, np.ndarray] = field(default_factory=dict)
    next_epoch: int = 0

    def epochs(self) -> Iterator[int]:
        """The epochs that still have samples, in order, without end."""
        return itertools.chain(self.samples, itertools.count(self.next_epoch))


MakeBatches = Callable[[int, int, int, LeftOver], Iterable[list[int]]]


def samples_left(stretches: Sequence[Stretch], num_samples: int, *, seed: int, make_batches: MakeBatches) -> LeftOver:
    """Go through the stretches of a run again, without loading anything, and see what they have left.

    Each stretch takes what those before it have left, so that an image is neither lost nor seen twice where the number
    of processes changes. As at the end of every epoch, samples are repeated where they cannot be divided evenly: fewer
    than there are processes.

    Args:
        stretches: what the run did so far, in order.
        num_samples: size of the data set.
        seed: of the order of the samples.
        make_batches: ``f(world_size, rank, images_per_process, left_over)``: the batch sampler of one process.
    """
    left = LeftOver()
    for stretch in stretches:
        seen: dict[int, np.ndarray] = {}
        for rank in range(stretch.world_size):
            batches = make_batches(stretch.world_size, rank, stretch.images_per_batch // stretch.world_size, left)
            iterations = IterationBasedBatchSampler(batches, stretch.iterations, epochs=left.epochs)
            for epoch, batch in iterations.epoch_batches():
                seen.setdefault(epoch, np.zeros(num_samples, dtype=bool))[batch] = True
        next_epoch = max([left.next_epoch, *(epoch + 1 for epoch in seen)])
        samples = {}
        for epoch in sorted({*left.samples, *range(left.next_epoch, next_epoch)}):
            order = left.samples.get(epoch)
            if order is None:
                order = keyed_permutation(seed, epoch, length=num_samples)
            rest = order[~seen[epoch][order]] if epoch in seen else order
            if len(rest):
                samples[epoch] = rest
        left = LeftOver(samples, next_epoch)
    return left
