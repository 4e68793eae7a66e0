"""How much memory there is, how much of it is in use, and whether an error says that it ran out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import torch

# What the allocators of torch, its libraries and OpenCV say; torch has an error class for CUDA alone.
_PHRASES = (
    "DefaultCPUAllocator",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Insufficient memory",
    "Caught MemoryError in DataLoader worker",
)
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _PHRASES)


def memory_use(device: torch.device) -> tuple[int, int]:
    """Bytes in use and bytes there are: of a GPU, other programs included, or of this process and its machine.

    On the host the smallest of the machine's memory, the container's limit and ``ulimit -v`` counts; 0 stands for what
    the system does not tell.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free, total
    return _resident(), memory_limit()


def memory_limit() -> int:
    """Bytes that this process may use on the host: see `memory_use`."""
    return min(filter(None, _host_limits()), default=0)


def describe_memory(device: torch.device) -> str:
    """``memory_use`` in words, such as "3.1 of 8.0 GiB in use"; "" where nothing is known."""
    try:
        used, total = memory_use(device)
    except RuntimeError:  # of a GPU that does not answer any more
        return ""
    of = f" of {total / 2**30:.1f}" if total else ""
    return f"{used / 2**30:.1f}{of} GiB in use" if used else ""


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _host_limits() -> list[int]:
    limits = []
    for path in _CGROUP_LIMITS:
        try:
            limits.append(int(path.read_text()))  # "max" where there is none
        except (OSError, ValueError):
            continue
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        import resource

        limits.append(max(resource.getrlimit(resource.RLIMIT_AS)[0], 0))  # -1: none
    except ImportError:  # Windows
        pass
    return limits
