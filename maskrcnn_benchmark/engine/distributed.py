"""The model in a run of several processes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_benchmark.utils.comm import get_world_size


def wrap_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a model so that gradients are averaged over processes; a world of one keeps it as it is.

    Gradients live in the communication buckets, which saves a copy. Buffers are sent round only where a batch norm
    updates them. The graph is not declared static: an image without objects may leave the mask head without gradients
    in one step and not in the next, and micro-batches skip the exchange.
    """
    if get_world_size() == 1:
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=any(isinstance(module, _BatchNorm) for module in model.modules()),
        gradient_as_bucket_view=True,
    )
