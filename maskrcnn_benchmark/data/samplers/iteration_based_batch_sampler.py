"""A fixed number of iterations, as many epochs as that takes, resumable at every iteration."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from torch.utils.data import Sampler


class IterationBasedBatchSampler(Sampler[list[int]]):
    """Goes through the epochs of a batch sampler until ``num_iterations`` batches are done.

    The batches of an epoch depend on the epoch alone (``sampler.set_epoch`` of the wrapped batch sampler). A resumed
    run counts the batches of the earlier epochs without loading them, so it goes on with the very batch that would
    have come.

    Args:
        batch_sampler: yields batches of indices; its attribute ``sampler`` may have ``set_epoch``.
        num_iterations: number of the last iteration.
        start_iter: iterations that are done already.
        first_iter: iterations that were done when the first of the epochs began.
        epochs: gives the epochs to go through, in order, without end; None: 0, 1, 2, ...
    """

    def __init__(
        self,
        batch_sampler: Iterable[list[int]],
        num_iterations: int,
        start_iter: int = 0,
        *,
        first_iter: int = 0,
        epochs: Callable[[], Iterator[int]] | None = None,
    ) -> None:
        self.batch_sampler = batch_sampler
        self.num_iterations = num_iterations
        self.start_iter = start_iter
        self.first_iter = first_iter
        self.epochs = epochs or itertools.count

    def epoch_batches(self) -> Iterator[tuple[int, list[int]]]:
        """The batches from ``start_iter`` on, each with its epoch (from 0).

        Raises:
            ValueError: when an epoch has no batch.
        """
        sampler = getattr(self.batch_sampler, "sampler", None)
        iteration, epochs = self.first_iter, self.epochs()
        while iteration < self.num_iterations:
            epoch = next(epochs)
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
            first_of_epoch = iteration
            for batch in self.batch_sampler:
                iteration += 1
                if iteration > self.start_iter:
                    yield epoch, batch
                if iteration == self.num_iterations:
                    return
            if iteration == first_of_epoch:
                raise ValueError(
                    f"epoch {epoch} has no batch: the data set has no sample for this process, or too few for a batch"
                )

    def __iter__(self) -> Iterator[list[int]]:
        return (batch for _, batch in self.epoch_batches())

    def __len__(self) -> int:
        """``num_iterations``, also after a resume: the training loop takes it as the number of its last iteration."""
        return self.num_iterations
