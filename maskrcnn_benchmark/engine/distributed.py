"""The model in a run of several processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_benchmark.utils.comm import get_world_size


def wrap_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a model so that gradients are averaged over processes; a world of one keeps it as it is.

    Gradients live in the communication buckets, which saves a copy. Buffers are sent round only where a batch norm
    updates them.

    The graph is not declared static, with micro-batches or without. That declaration spares the search for unused
    parameters, which is not asked for here: every parameter gets a gradient in every step, the mask head's too when no
    region is positive. It allows checkpointing of activations, which nothing here uses. The buckets are laid out anew
    after the first step either way, and from the second step on both forms run the same code, so that all it would
    change is the first step, whose exchange then waits for the whole backward pass.

    Args:
        model: on the device; every trainable parameter must get a gradient in every step.
        device: where this process computes.
    """
    if get_world_size() == 1:
        return model
    wrapped = DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=_has_running_statistics(model),
        gradient_as_bucket_view=True,
    )
    _fix_bucket_order(wrapped)
    return wrapped


def synchronize_buffers(model: nn.Module) -> None:
    """Give every process the running statistics of the first, which are the ones that a checkpoint holds.

    In training each process updates its own after they were sent round; before an evaluation they must agree.
    """
    if get_world_size() > 1 and _has_running_statistics(model):
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def _has_running_statistics(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _fix_bucket_order(wrapped: DistributedDataParallel) -> None:
    """Let the buckets be laid out by a backward pass without data, from the last registered parameter to the first.

    Otherwise the first step's order of arrival decides, one step late. The place in a bucket decides in which order
    three or more processes are summed, so the first step after a restart would round differently than the same step of
    an uninterrupted run.
    """
    model = wrapped.module
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.forward = lambda: torch.stack([0.0 * parameter.sum() for parameter in parameters]).sum()
    try:
        wrapped().backward()
    finally:
        del model.forward  # the class's own is back
    model.zero_grad(set_to_none=True)
