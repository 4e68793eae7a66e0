"""What makes a run repeatable: a seed for each iteration of each process, and kernels that always sum in one order."""

from __future__ import annotations

import hashlib
import os
import random
import sys

import numpy as np
import torch

# Read when cuBLAS, NCCL and torch.compile start; a value that is set already is the user's own choice.
DETERMINISTIC_VARIABLES = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # one workspace a stream
    "NCCL_ALGO": "Ring",  # NCCL adds in the order of the ring; what an NVLink switch adds (NVLS) comes in any order
    "TORCHINDUCTOR_DETERMINISTIC": "1",  # otherwise reductions are split as their measured time suggests
}


def step_seed(seed: int, iteration: int, rank: int) -> int:
    """63 bits that depend on all three numbers."""
    digest = hashlib.blake2b(f"{seed}/{iteration}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed torch's default generators, of the CPU and of every GPU, for one iteration; Python's and NumPy's too.

    The package draws from torch's alone; a part of one's own may draw from the others.
    """
    number = step_seed(seed, iteration, rank)
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed((number & 0xFFFFFFFF, number >> 32))  # noqa: NPY002  (the global generator is what is seeded)


def use_deterministic_kernels() -> None:
    """Let every kernel of this process give the same bits each time.

    Call it before the process group is made and a kernel runs on a GPU: the libraries read their variables then. A CPU
    needs it not: there all kernels of this package sum in one order.
    """
    for name, value in DETERMINISTIC_VARIABLES.items():
        os.environ.setdefault(name, value)
    compiler = sys.modules.get("torch._inductor.config")
    if compiler is not None:  # it has read its variable already
        compiler.deterministic = True
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a pass over memory that nothing here reads
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by their time
