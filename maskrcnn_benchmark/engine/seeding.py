"""What makes a run repeatable: a seed for each iteration of each process, and kernels that always sum in one order."""

from __future__ import annotations

import hashlib
import os

import torch


def step_seed(seed: int, iteration: int, rank: int) -> int:
    """63 bits that depend on all three numbers."""
    digest = hashlib.blake2b(f"{seed}/{iteration}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed torch's default generators, of the CPU and of every GPU, for one iteration."""
    torch.manual_seed(step_seed(seed, iteration, rank))


def use_deterministic_kernels() -> None:
    """Let every kernel of this process give the same bits each time; call it before the first one runs on a GPU.

    A CPU needs it not: there all kernels of this package sum in one order.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS: one workspace a stream
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a pass over memory that nothing here reads
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by their time
