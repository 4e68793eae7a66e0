"""What a launcher such as torchrun says of this process in its environment; needs no torch."""

from __future__ import annotations

import os


def get_local_rank() -> int:
    """Rank of this process on its own node, as the launcher says in LOCAL_RANK; 0 without a launcher."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def get_local_world_size() -> int:
    """Number of processes on this node, as the launcher says in LOCAL_WORLD_SIZE; 1 without a launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
