"""One seed for each iteration of each process, so that a resumed run draws what the uninterrupted one drew."""

from __future__ import annotations

import hashlib

import torch


def step_seed(seed: int, iteration: int, rank: int) -> int:
    """63 bits that depend on all three numbers."""
    digest = hashlib.blake2b(f"{seed}/{iteration}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed torch's default generators, of the CPU and of every GPU, for one iteration."""
    torch.manual_seed(step_seed(seed, iteration, rank))
