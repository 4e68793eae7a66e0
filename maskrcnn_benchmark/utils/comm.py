"""Talk between the processes of one run; every function also works without a process group (a world of one)."""

from __future__ import annotations

import datetime
import gc
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from maskrcnn_benchmark.utils.launch import get_local_rank as get_local_rank
from maskrcnn_benchmark.utils.launch import get_local_world_size as get_local_world_size

# What gloo, which has no error class, NCCL and the store say when the other end does not answer.
_LOST = re.compile(
    r"gloo/transport|Connection (was )?(closed|reset) by|Timed out waiting \d+ ?ms|Broken pipe|ncclRemoteError"
    r"|remote process exited|failed to (recv|send)"
)


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes in the run; 1 without a process group."""
    return dist.get_world_size() if _in_group() else 1


def get_rank() -> int:
    """Rank of this process over all nodes; 0 without a process group."""
    return dist.get_rank() if _in_group() else 0


def is_main_process() -> bool:
    """Whether this is the process that writes files and logs."""
    return get_rank() == 0


def init_process_group(device: torch.device, *, timeout_seconds: float = 3600.0) -> None:
    """Join the process group that the launcher's environment describes; nothing happens in a world of one.

    Tensors on ``device`` travel over NCCL on CUDA and over gloo on the CPU. Gloo is always there beside NCCL, so that
    pickled objects never pass through GPU memory.

    Args:
        device: where this process computes.
        timeout_seconds: how long one collective may wait for a process that does not answer. Long, because the first
            one evaluates alone. A process that has died is noticed at once, by its connection or by the launcher.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or _in_group():
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = datetime.timedelta(seconds=timeout_seconds)
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # One store serves all restarts of torchrun, and still holds the addresses of the processes that have died. On
        # several nodes each has a count of its own, which does not count restarts because of another node; there the
        # scripts let each restart have a store of its own.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt_{attempt}", store)
    dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=world_size)
    synchronize()


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error only says that another process of the run does not answer any more."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # also while they meet
    return several and isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


def destroy_process_group() -> None:
    """Leave the process group, if there is one. What was wrapped for it is of no more use."""
    if _in_group():
        # Wrapped models lie in cycles and hold the group, whose threads then live into the end of the interpreter: when
        # one of them frees a Python object there, the process is aborted, with all its work done.
        gc.collect()
        dist.destroy_process_group()


def synchronize() -> None:
    """Wait until every process has come here."""
    if get_world_size() > 1:
        # An exchanged object instead of a barrier: it goes over gloo and so needs no GPU of its own.
        all_gather(None)


def all_gather(data: Any) -> list[Any]:
    """Gather one picklable object (tensors included, each keeps its device) from every process.

    Returns:
        One entry a process, in order of rank, on every process.
    """
    if get_world_size() == 1:
        return [data]
    gathered: list[Any] = [None] * get_world_size()
    dist.all_gather_object(gathered, data)
    return gathered


def broadcast(data: Any, *, src: int = 0) -> Any:
    """Give every process the picklable object of process ``src``."""
    if get_world_size() == 1:
        return data
    box = [data]
    dist.broadcast_object_list(box, src=src)
    return box[0]


def reduce_tensor(values: Tensor, *, average: bool = True) -> Tensor:
    """Sum (or mean) of a tensor of one shape over all processes; every process gets the result, the input stays."""
    if get_world_size() == 1:
        return values
    reduced = values.detach().clone()
    dist.all_reduce(reduced)
    return reduced / get_world_size() if average else reduced


def reduce_dict(input_dict: Mapping[str, Tensor], average: bool = True) -> dict[str, Tensor]:
    """Mean (or sum) over all processes of a dict of scalars that has the same keys everywhere, in one collective.

    Args:
        input_dict: name -> 0-d tensor, all on one device.
        average: mean if true, sum if false.

    Returns:
        A dict with the same keys in the same order, on every process.
    """
    if get_world_size() == 1 or not input_dict:
        return dict(input_dict)
    names = sorted(input_dict)
    with torch.no_grad():
        values = reduce_tensor(torch.stack([input_dict[name].detach().float() for name in names]), average=average)
    reduced = dict(zip(names, values.unbind(0), strict=True))
    return {name: reduced[name] for name in input_dict}
