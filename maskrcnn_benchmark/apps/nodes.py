"""What the processes of a run must have in common, checked before they work for hours on what differs."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

import torch
from yacs.config import CfgNode

import maskrcnn_benchmark
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.nested import flatten

logger = logging.getLogger("maskrcnn_benchmark")

# What a node may have in its own way: where its files lie, and how many workers and threads it has.
OWN = frozenset(
    {
        "OUTPUT_DIR",
        "PATHS_CATALOG",
        "CPU_THREADS",
        "MODEL.WEIGHT",
        "DATASETS.DATA_DIR",
        "DATASETS.CUSTOM",
        "DATALOADER.NUM_WORKERS",
    }
)


def validate_agreement(cfg: CfgNode) -> None:
    """Check that all processes were started alike: config, versions, and the number of nodes.

    Raises:
        ValueError: on every process, with the first thing that differs.
    """
    if comm.get_world_size() == 1:
        return
    own = {key: repr(value) for key, value in flatten(cfg).items() if key not in OWN}
    own["NNODES"] = os.environ.get("NNODES", "")
    own["the version of maskrcnn_benchmark"] = maskrcnn_benchmark.__version__
    own["the version of torch"] = torch.__version__
    everyone = comm.all_gather(own)
    for rank, other in enumerate(everyone[1:], start=1):
        for name, value in everyone[0].items():
            if other.get(name) != value:
                raise ValueError(
                    f"{name} is {value} in process 0, but {other.get(name)} in process {rank}; start every node with "
                    "the same command and the same program"
                )


def tell_of_own_folders(folder: str) -> None:
    """Say so where the output folder is another one on some nodes. All processes call it.

    Args:
        folder: OUTPUT_DIR, which exists; "" for none.
    """
    if not folder or comm.get_world_size() == comm.get_local_world_size():
        return
    # A new name each time: what a network file system was never asked for, it cannot remember as missing.
    token = Path(folder) / comm.broadcast(f".seen-{secrets.token_hex(8)}")
    if comm.is_main_process():
        token.touch()
    comm.synchronize()
    seen = comm.all_gather(token.exists())
    if comm.is_main_process():
        token.unlink()
    if comm.is_main_process() and not all(seen):
        blind = [str(rank) for rank, sees in enumerate(seen) if not sees]
        logger.warning(
            "OUTPUT_DIR %s is not one folder on all nodes (not for process %s): checkpoints, logs and results lie on "
            "the node of process 0 alone, which hands the checkpoint to the others; keep that node's disk",
            folder,
            ", ".join(blind),
        )
