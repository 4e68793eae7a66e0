"""How the threads of parallel loops wait for one another; needs no torch."""

from __future__ import annotations

import os

_SPINS = 5_000  # well below 0.1 ms
_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def share_cores() -> None:
    """Have threads that wait for work give their core away soon; takes effect before torch is imported.

    GNU's OpenMP, with which PyTorch is built, lets a thread that waits at the end of a loop run on for milliseconds.
    Where the cores have other work too, loader workers for one, that work and the waiting thread are in each other's
    way: a training step of two threads on two busy cores took 2.7 times as long. The programs call this first;
    libraries that are already there and settings of the user's stay as they are.
    """
    if not any(name in os.environ for name in _SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = str(_SPINS)
