"""Calls of ops on the GPU, for the tests marked `gpu`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map_only


def to_gpu(arguments: Sequence[Any]) -> list[Any]:
    """Copies the tensors of a call to the GPU."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor.cuda(), list(arguments))


def without_waiting(op: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Calls ``op``, in which a wait for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        return op(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
