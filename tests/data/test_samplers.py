from __future__ import annotations

import itertools

import numpy as np
import pytest

from maskrcnn_benchmark.data.keyed import SampleKey, keyed_bits, keyed_permutation, keyed_uniform
from maskrcnn_benchmark.data.samplers import (
    DistributedSampler,
    GroupedBatchSampler,
    IterationBasedBatchSampler,
    KeyedBatchSampler,
)


def parts(length: int, num_replicas: int, epoch: int = 0, **kwargs) -> list[list[int]]:
    samplers = [DistributedSampler(range(length), num_replicas, rank, **kwargs) for rank in range(num_replicas)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)
    return [list(sampler) for sampler in samplers]


def test_keyed_words_never_change() -> None:
    # Frozen: if these words change, every run of every user changes.
    assert keyed_bits(1, 2, 3, count=2).tolist() == [13279728891206244966, 234311473967787377]
    uniform = keyed_uniform(1, 2, 3, count=1000)
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert abs(uniform.mean() - 0.5) < 0.03
    with pytest.raises(ValueError, match=r"must not be negative, got \(1, -2\)"):
        keyed_bits(1, -2, count=1)


def test_keyed_permutation_is_one_and_depends_on_the_key() -> None:
    orders = [keyed_permutation(seed, epoch, length=50).tolist() for seed in range(3) for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 9
    assert orders[0] == keyed_permutation(0, 0, length=50).tolist()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("length", "num_replicas"), [(10, 1), (10, 2), (11, 4), (3, 4), (1, 3)])
def test_training_parts_have_one_length_and_hold_everything(length: int, num_replicas: int, shuffle: bool) -> None:
    shares = parts(length, num_replicas, shuffle=shuffle)
    share = -(-length // num_replicas)
    assert [len(part) for part in shares] == [share] * num_replicas
    whole = list(itertools.chain(*shares))
    assert whole[length:] == (whole[:length] * num_replicas)[: len(whole) - length]
    assert sorted(whole[:length]) == list(range(length))
    assert shuffle or whole[:length] == list(range(length))


@pytest.mark.parametrize(("length", "num_replicas"), [(10, 1), (10, 3), (3, 4), (0, 2)])
def test_evaluation_parts_hold_every_sample_once_in_order(length: int, num_replicas: int) -> None:
    shares = parts(length, num_replicas, shuffle=False, pad=False)
    assert list(itertools.chain(*shares)) == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert parts(20, 2, epoch=3, seed=5) == parts(20, 2, epoch=3, seed=5)
    assert parts(20, 2, epoch=3, seed=5) != parts(20, 2, epoch=4, seed=5)
    assert parts(20, 2, epoch=3, seed=5) != parts(20, 2, epoch=3, seed=6)
    assert parts(20, 2, epoch=0, shuffle=False) == parts(20, 2, epoch=1, shuffle=False)


def test_rank_must_exist() -> None:
    with pytest.raises(ValueError, match=r"rank must lie in 0 .. 1, got 2"):
        DistributedSampler(range(4), 2, 2)


def test_groups_keep_the_order_of_the_sampler() -> None:
    sampler = [5, 0, 3, 1, 4, 2]
    groups = [0, 1, 0, 1, 1, 0]
    # the members of group 0 come as 5, 0, 2, those of group 1 as 3, 1, 4
    assert list(GroupedBatchSampler(sampler, groups, 2)) == [[5, 0], [3, 1], [4], [2]]
    assert list(GroupedBatchSampler(sampler, groups, 2, drop_uneven=True)) == [[5, 0], [3, 1]]
    assert list(GroupedBatchSampler(sampler, groups, 1)) == [[index] for index in sampler]
    assert len(GroupedBatchSampler(sampler, groups, 2)) == 4


@pytest.mark.parametrize("batch_size", [1, 3, 5, 6])
@pytest.mark.parametrize("drop_uneven", [True, False])
def test_consecutive_groups(batch_size: int, drop_uneven: bool) -> None:
    groups = [index // 10 for index in range(40)]
    expected = []
    for first in range(0, 40, 10):
        chunks = [list(range(first + a, first + min(a + batch_size, 10))) for a in range(0, 10, batch_size)]
        expected += [chunk for chunk in chunks if len(chunk) == batch_size or not drop_uneven]
    assert list(GroupedBatchSampler(range(40), groups, batch_size, drop_uneven)) == expected


def test_grouped_batches_of_a_random_order() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 3, 100)
    order = generator.permutation(100)[:77].tolist()
    batches = list(GroupedBatchSampler(order, groups, 4))
    assert sorted(itertools.chain(*batches)) == sorted(order)
    assert all(len(set(groups[batch])) == 1 for batch in batches)
    firsts = [order.index(batch[0]) for batch in batches]
    assert firsts == sorted(firsts)
    for group in range(3):
        members = [index for batch in batches for index in batch if groups[index] == group]
        assert members == [index for index in order if groups[index] == group]


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"batch_size must be at least 1, got 0"):
        GroupedBatchSampler([0], [0], 0)


def batches(start_iter: int, rank: int = 0, num_replicas: int = 1, num_iterations: int = 23):
    sampler = DistributedSampler(range(13), num_replicas, rank, seed=7)
    grouped = GroupedBatchSampler(sampler, [index % 3 for index in range(13)], 2)
    return IterationBasedBatchSampler(grouped, num_iterations, start_iter)


@pytest.mark.parametrize(("num_replicas", "rank"), [(1, 0), (2, 0), (2, 1)])
def test_resume_at_every_iteration(num_replicas: int, rank: int) -> None:
    whole = list(batches(0, rank, num_replicas))
    keys = list(KeyedBatchSampler(batches(0, rank, num_replicas)))
    assert len(whole) == len(keys) == 23
    assert len({batch[0].epoch for batch in keys}) >= 3
    for start_iter in range(24):
        resumed = batches(start_iter, rank, num_replicas)
        assert len(resumed) == 23
        assert list(resumed) == whole[start_iter:]
        assert list(KeyedBatchSampler(batches(start_iter, rank, num_replicas))) == keys[start_iter:]


def test_every_epoch_holds_every_sample() -> None:
    keys = list(itertools.chain(*KeyedBatchSampler(batches(0))))
    for epoch in range(2):
        assert sorted(key.index for key in keys if key.epoch == epoch) == list(range(13))
    assert keys[0] == SampleKey(0, keys[0].index)


def test_without_epochs_everything_is_epoch_0() -> None:
    plain = GroupedBatchSampler(range(4), [0] * 4, 3)
    assert list(KeyedBatchSampler(plain)) == [[(0, 0), (0, 1), (0, 2)], [(0, 3)]]
    assert len(KeyedBatchSampler(plain)) == 2


def test_an_epoch_without_batches_is_an_error() -> None:
    empty = GroupedBatchSampler(range(2), [0, 0], 3, drop_uneven=True)
    with pytest.raises(ValueError, match=r"epoch 0 has no batch"):
        list(IterationBasedBatchSampler(empty, 5))
