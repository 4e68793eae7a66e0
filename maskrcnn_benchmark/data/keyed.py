"""Random numbers that are a function of a key alone: no state, so workers, ranks and restarts cannot change them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class SampleKey(NamedTuple):
    """What the loader asks a data set for: sample ``index`` as it looks in ``epoch``."""

    epoch: int
    index: int


def keyed_bits(*key: int, count: int) -> np.ndarray:
    """``count`` random 64-bit words that depend on nothing but ``key``.

    Raw words of the Philox generator: NumPy promises them for all versions, which it does not for its distributions.

    Args:
        key: non-negative integers, for example (seed, epoch, index).
        count: how many words.

    Returns:
        uint64 [count].

    Raises:
        ValueError: when a part of the key is negative.
    """
    if min(key) < 0:
        raise ValueError(f"the key of a random draw must not be negative, got {key}")
    return np.random.Philox(np.random.SeedSequence(key)).random_raw(count)


def keyed_uniform(*key: int, count: int) -> np.ndarray:
    """``count`` float64 numbers in [0, 1) that depend on nothing but ``key`` (see :func:`keyed_bits`)."""
    return (keyed_bits(*key, count=count) >> np.uint64(11)) * 2.0**-53


def keyed_permutation(*key: int, length: int) -> np.ndarray:
    """A random order of 0 .. ``length`` - 1, int64, that depends on nothing but ``key`` and ``length``."""
    return np.argsort(keyed_bits(*key, count=length), kind="stable")
