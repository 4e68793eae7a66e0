"""No image is lost, and hardly one seen twice, where the number of processes changes within an epoch."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from maskrcnn_benchmark.data.samplers import (
    DistributedSampler,
    GroupedBatchSampler,
    IterationBasedBatchSampler,
    LeftOver,
    samples_left,
)
from maskrcnn_benchmark.solver.world_size import Stretch

SEED = 3


def batch_samplers(num_samples, groups):
    def make(world_size, rank, size, left):
        sampler = DistributedSampler(range(num_samples), world_size, rank, seed=SEED, samples_left=left.samples)
        return GroupedBatchSampler(sampler, groups, size)

    return make


def run(make, stretch, left, begin=0, done=0):
    """What each process sees in a stretch: (epoch, batch) of every iteration after ``done``."""
    size = stretch.images_per_batch // stretch.world_size
    return [
        list(
            IterationBasedBatchSampler(
                make(stretch.world_size, rank, size, left),
                begin + stretch.iterations,
                begin + done,
                first_iter=begin,
                epochs=left.epochs,
            ).epoch_batches()
        )
        for rank in range(stretch.world_size)
    ]


@pytest.mark.parametrize("num_groups", [1, 2])
def test_each_epoch_has_every_sample_over_all_changes(num_groups):
    draw = random.Random(num_groups)
    for _ in range(25):
        num_samples = draw.randrange(20, 90)
        groups = np.array([draw.randrange(num_groups) for _ in range(num_samples)])
        make = batch_samplers(num_samples, groups)
        stretches, counts, repeated = [], {}, {}
        for number in range(5):
            world_size = draw.randrange(1, 5)
            last = number == 4
            iterations = 400 if last else draw.randrange(1, 14)
            stretch = Stretch(world_size, world_size * draw.randrange(1, 4), iterations)
            left = samples_left(stretches, num_samples, seed=SEED, make_batches=make)
            for epoch in {epoch for rank in run(make, stretch, left) for epoch, _ in rank}:
                # What cannot be divided evenly is repeated, as at the end of every epoch.
                repeated[epoch] = repeated.get(epoch, 0) + world_size - 1
            for rank in run(make, stretch, left):
                for epoch, batch in rank:
                    counts.setdefault(epoch, Counter()).update(batch)
            stretches.append(stretch)
        ended = min(rank[-1][0] for rank in run(make, stretch, left))
        whole = [epoch for epoch in sorted(counts) if epoch < ended]
        assert len(whole) > 1
        for epoch in whole:
            assert set(counts[epoch]) == set(range(num_samples)), f"samples of epoch {epoch} were lost"
            assert sum(counts[epoch].values()) - num_samples <= repeated[epoch]


def test_nothing_is_seen_again_in_the_epoch_of_the_change():
    make = batch_samplers(48, np.zeros(48))
    first = Stretch(3, 12, 3)  # 36 of 48 images
    seen = {index for rank in run(make, first, LeftOver()) for _, batch in rank for index in batch}
    left = samples_left([first], 48, seed=SEED, make_batches=make)
    assert (list(left.samples), left.next_epoch) == ([0], 1)
    assert len(seen) == 36
    assert set(left.samples[0]) == set(range(48)) - seen
    second = run(make, Stretch(2, 4, 4), left, begin=9)
    assert [epoch for epoch, _ in second[0]] == [0, 0, 0, 1]
    assert {index for rank in second for epoch, batch in rank if epoch == 0 for index in batch} == set(left.samples[0])


def test_a_change_between_epochs_changes_nothing():
    make = batch_samplers(24, np.zeros(24))
    left = samples_left([Stretch(2, 4, 6)], 24, seed=SEED, make_batches=make)
    assert (dict(left.samples), left.next_epoch) == ({}, 1)
    fresh = run(make, Stretch(1, 4, 12), LeftOver())[0][6:]
    assert run(make, Stretch(1, 4, 6), left)[0] == fresh


def test_resuming_after_a_change_goes_on_at_the_very_batch():
    draw = random.Random(5)
    groups = np.array([draw.randrange(2) for _ in range(61)])
    make = batch_samplers(61, groups)
    left = samples_left([Stretch(2, 6, 7), Stretch(3, 6, 2)], 61, seed=SEED, make_batches=make)
    whole = run(make, Stretch(2, 4, 40), left, begin=5)
    for done in range(0, 40, 3):
        assert run(make, Stretch(2, 4, 40), left, begin=5, done=done) == [rank[done:] for rank in whole]


def test_a_run_without_changes_is_as_ever():
    make = batch_samplers(50, np.zeros(50))
    left = samples_left([], 50, seed=SEED, make_batches=make)
    plain = IterationBasedBatchSampler(make(2, 1, 3, LeftOver()), 30)
    assert list(plain.epoch_batches()) == run(make, Stretch(2, 6, 30), left)[1]
