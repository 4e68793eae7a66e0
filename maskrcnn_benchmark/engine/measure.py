"""Figures of speed and memory."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.utils.metric_logger import peak_memory_mib

PERCENTILES = (50, 90, 95, 99)

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def summarize_times(milliseconds: Sequence[float]) -> dict[str, float]:
    """Mean and percentiles of times, as mean, p50, p90, p95, p99."""
    percentiles = np.percentile(milliseconds, PERCENTILES).tolist()
    names = (f"p{percent}" for percent in PERCENTILES)
    return {"mean": float(np.mean(milliseconds)), **dict(zip(names, percentiles, strict=True))}


class PeakMemory:
    """Most memory since the object was made, of the allocator on a GPU, of the process on a CPU.

    Args:
        device: whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.was_reset = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif sys.platform == "linux":
            try:
                _CLEAR.write_text("5")  # the kernel's high-water mark of this process
                self.was_reset = True
            except OSError:
                pass

    def read(self) -> float:
        """Peak in MiB; on a CPU that is not Linux it is the peak since the process began."""
        if self.was_reset:
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 2**10
        return peak_memory_mib(self.device)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What decides the speed, without the name of the host."""
    found: dict[str, Any] = {
        "device": processor_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found


def processor_name(device: torch.device) -> str:
    """The name of a GPU, or of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
