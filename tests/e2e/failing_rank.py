"""tools/train_net.py with a fault: MARKER KIND RANK ITERATION, then the tool's own words.

In that iteration of that process the fault happens, unless the file MARKER is there, which it leaves: once.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import torch

from maskrcnn_benchmark.apps.train import main, make_parser
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.utils import comm


def fail(kind):
    sys.stderr.write(f"planted {kind} in process {comm.get_rank()} at {time.time()}\n")
    sys.stderr.flush()
    if kind == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "sigsegv":
        ctypes.string_at(0)
    elif kind == "exception":
        raise AttributeError("a fault of the program itself")
    elif kind == "memory":
        torch.empty(2**50)
    raise ValueError(f"a mistake of the user that every process sees: {kind}")


def plant(marker, kind, rank, iteration):
    original = TrainStep.__call__

    def faulty(step, images, targets, *, iteration):
        if iteration == at and comm.get_rank() in ranks and not marker.exists():
            if len(ranks) == 1:
                marker.touch()
            fail(kind)
        return original(step, images, targets, iteration=iteration)

    at, ranks = iteration, (0, 1) if rank < 0 else (rank,)
    TrainStep.__call__ = faulty


if __name__ == "__main__":
    torch.set_num_threads(1)
    marker, kind, rank, iteration = sys.argv[1:5]
    plant(Path(marker), kind, int(rank), int(iteration))
    main(make_parser().parse_args(sys.argv[5:]), cfg)
