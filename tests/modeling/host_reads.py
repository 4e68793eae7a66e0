"""Finds the places where the host would wait for the device, on a machine that has none."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_INDEXING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default}


class HostReads(TorchDispatchMode):
    """Collects the ATen ops in its context after which a host that drives a GPU has to wait for it.

    These read values back (item, nonzero, masked_select, an index of booleans), or make a tensor from host numbers,
    which on a GPU is a copy that blocks.
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in _INDEXING:
            waits = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        else:
            waits = func is torch.ops.aten.lift_fresh.default or bool(_WAITS & set(func.tags))
        if waits:
            self.found.append(func._schema.name)
        return func(*args, **(kwargs or {}))
