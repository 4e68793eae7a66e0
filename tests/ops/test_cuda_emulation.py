"""The emulator of CUDA kernels: right kernels give what they mean, wrong ones are caught."""

from __future__ import annotations

import pytest
import torch

THREADS = 128  # kThreads of examples.cu
UNDEFINED = "an index out of bounds, an overflow, a shift too far, or a division by zero"


@pytest.fixture(scope="module")
def library(emulated):
    return emulated("examples")


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def examples(library, request):
    library.set_order(reverse=request.param)
    yield library
    library.set_order(reverse=False)


def randint(*arguments, seed=0):
    return torch.randint(*arguments, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def test_reduction_by_shuffles(examples):
    values = randint(-100, 100, (1000,)).float()
    sums = torch.full((3,), torch.nan)
    examples.sum(values, len(values), sums, len(sums))
    padded = torch.nn.functional.pad(values, (0, 9 * THREADS - len(values))).reshape(3, 3, THREADS)
    assert torch.equal(sums, padded.sum(dim=(0, 2)))


def test_dynamic_shared_memory(examples):
    values = torch.randn(75, dtype=torch.float64)
    shifted = torch.zeros_like(values)
    examples.shift(values, shifted, len(values), True)
    assert torch.equal(shifted, values.roll(-1))


def test_a_missing_barrier_shows_as_fresh_memory_is_nan(library):
    values = torch.arange(64.0, dtype=torch.float64)
    results = []
    for reverse in (False, True):
        library.set_order(reverse=reverse)
        results.append(torch.zeros_like(values))
        library.shift(values, results[-1], len(values), False)
    library.set_order(reverse=False)
    # Ascending, all but the last read before anyone wrote; descending, only the last does.
    assert results[0].isnan().tolist() == [True] * 63 + [False]
    assert results[1].isnan().tolist() == [False] * 63 + [True]


def test_atomics_in_shared_and_device_memory(examples):
    values = randint(3, 900, (500,))
    bins = torch.zeros(8, dtype=torch.int32)
    extremes = torch.tensor([0, -1, 0, -1, 7], dtype=torch.int32)  # -1 has all bits
    total, sum_ = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
    examples.count(values, len(values), bins, extremes, total, sum_)
    assert torch.equal(bins.long(), torch.bincount(values % 8, minlength=8))
    assert extremes[:4].tolist() == [values.max(), values.min(), 255, -256]
    assert extremes[4] != 7
    assert 0 <= extremes[4] < 500
    assert total == values.sum() == sum_


def test_votes_and_shuffles(examples):
    values = randint(-2, 4, (THREADS,))
    values[:32] = 1  # a warp in which all vote yes
    values[32:64] = 0
    seen = torch.zeros(THREADS, 10, dtype=torch.int32)
    examples.votes(values, seen)
    numbers = values.tolist()
    for thread, row in enumerate(seen.tolist()):
        lane, first = thread % 32, thread // 32 * 32
        warp = numbers[first : first + 32]
        positive = [value > 0 for value in warp]
        ballot = sum(1 << index for index in range(32) if positive[index])
        assert row[0] & 0xFFFFFFFF == ballot
        assert row[1:3] == [any(positive), all(positive)]
        up, down = (warp[lane + step] if 0 <= lane + step < 32 else warp[lane] for step in (-3, 3))
        assert row[3:7] == [warp[5], up, down, warp[lane ^ 9]]
        assert row[7:9] == [int(3 in numbers), sum(value > 0 for value in numbers)]
        assert row[9] == sum(positive[:lane])


def test_every_thread_of_every_block_runs_once(examples):
    places = torch.zeros(12, 24, dtype=torch.int32)
    examples.places(places)
    assert torch.equal(places, (torch.arange(12)[:, None] * 1000 + torch.arange(24)).int())


def test_bits(examples):
    values = torch.tensor([0, 1, -1, 6, -8, 1 << 20, 0x3F800000], dtype=torch.int32)
    seen = torch.zeros(len(values), 8, dtype=torch.int32)
    examples.bits(values, len(values), seen)
    for value, row in zip(values.tolist(), seen.tolist(), strict=True):
        unsigned = value & 0xFFFFFFFF
        lowest = (unsigned & -unsigned).bit_length()
        ones = bin(unsigned).count("1")
        doubled = (torch.tensor([value], dtype=torch.int32).view(torch.float32) * 2).view(torch.int32).item()
        wide = lowest + 16 if lowest else 0
        assert row[:5] == [ones, ones, lowest, wide, 32 - unsigned.bit_length()]
        if abs(value) < 0x7F800000 and value >= 0:  # the bits of a NaN may change
            assert row[5] == doubled
        assert row[6:] == [value, min(max(value, -5), 7)]


def test_vectors_of_half_precision_in_a_loop_over_blocks(examples):
    values = torch.randn(7 * 256, generator=torch.Generator().manual_seed(1)).half()
    results = torch.zeros_like(values)
    examples.twice(values, len(values) - 8, results)
    assert torch.equal(results, torch.cat([values[:-8] * 2, torch.zeros(8).half()]))
    with pytest.raises(RuntimeError, match=r"a vector of 16 bytes at 0x[0-9a-f]+, which is not a multiple of them"):
        examples.twice(values[4:], 8, results)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (0, r"it waits for ever at __syncthreads \(.*examples.cu:\d+\), since thread \(40, 0, 0\) has left the kernel"),
        (1, r"it comes to __syncthreads \(.*examples.cu:\d+\) while others wait at __syncthreads \(.*:\d+\)"),
        (2, r"waits for ever at __shfl_sync \(.*\), since thread \(7, 0, 0\) waits at __syncthreads \("),
        (3, r"__shfl_sync \(.*\) with the mask 0xff, not with the whole warp"),
        (4, r"an access to 0x[0-9a-f]+, which no array holds"),
        (5, UNDEFINED),
        (6, UNDEFINED),
        (7, "a vector of 8 bytes at .*, which is not a multiple of them"),
        (8, UNDEFINED),
        (10, "written beyond the 16 bytes of a tensor"),
    ],
)
def test_what_is_undefined_is_reported(examples, kind, message):
    values = torch.zeros(4, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=message) as caught:
        examples.wrong(kind, values)
    if kind != 10:
        assert "kernel misuse, block (" in str(caught.value)
    # The next launch starts anew.
    places = torch.zeros(12, 24, dtype=torch.int32)
    assert examples.places(places) == 0
    assert places[-1, -1] == 11023


def test_fresh_shared_memory_holds_nothing_useful(examples):
    values = torch.zeros(4, dtype=torch.int32)
    examples.wrong(9, values)
    assert values.view(torch.float32).isnan().all()
    assert values.view(torch.bfloat16).isnan().all()
    assert values.view(torch.half).isnan().all()
    assert values.view(torch.double).isnan().all()


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        ((1, 1025, 0), "a block has 1 to 1024 threads"),
        ((0, 32, 0), "the grid has no blocks"),
        ((2**31, 32, 0), "a grid has 2\\^31 - 1 blocks at most in x"),
        ((1, 32, 50000), "a block has 48 KiB of shared memory"),
    ],
)
def test_what_no_gpu_launches_is_refused(examples, launch, message):
    with pytest.raises(RuntimeError, match=f"kernel misuse: {message}"):
        examples.launch_of(*launch, torch.zeros(4, dtype=torch.int32))


def test_gaps_in_memory_are_refused(library):
    with pytest.raises(ValueError, match=r"the tensor of the shape \(4, 3\) has gaps in memory"):
        library.places(torch.zeros(4, 6)[:, ::2])
