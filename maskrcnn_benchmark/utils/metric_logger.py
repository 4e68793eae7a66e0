"""Running figures of a training run, in bounded memory."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class SmoothedValue:
    """A series of numbers, smoothed over a window, with its mean over the whole run.

    Args:
        window_size: how many of the newest numbers median and avg look at.
    """

    def __init__(self, window_size: int = 20) -> None:
        self.deque: deque[float] = deque(maxlen=window_size)
        self.total = 0.0
        self.count = 0

    def update(self, value: float) -> None:
        """Add one number."""
        self.deque.append(value)
        self.count += 1
        self.total += value

    @property
    def median(self) -> float:
        """Median of the window; of an even number of values the lower middle one. NaN when empty."""
        return sorted(self.deque)[(len(self.deque) - 1) // 2] if self.deque else float("nan")

    @property
    def avg(self) -> float:
        """Mean of the window; NaN when empty."""
        return sum(self.deque) / len(self.deque) if self.deque else float("nan")

    @property
    def global_avg(self) -> float:
        """Mean of all numbers ever added; NaN when empty."""
        return self.total / self.count if self.count else float("nan")


class MetricLogger:
    """Named series; each is also an attribute: ``meters.loss.median``.

    Args:
        delimiter: what stands between two series in the text form.
    """

    def __init__(self, delimiter: str = "\t") -> None:
        self.meters: dict[str, SmoothedValue] = {}
        self.delimiter = delimiter

    def update(self, **values: float | Tensor) -> None:
        """Add one number to each named series; a tensor must hold one element and is read (a sync on a GPU)."""
        for name, value in values.items():
            if isinstance(value, Tensor):
                value = value.item()
            if not isinstance(value, int | float):
                raise TypeError(f"metric {name!r} must be a number or a tensor of one element, got {type(value)}")
            self.meters.setdefault(name, SmoothedValue()).update(value)

    def __getattr__(self, name: str) -> SmoothedValue:
        meters = self.__dict__.get("meters", {})
        if name in meters:
            return meters[name]
        raise AttributeError(f"{type(self).__name__!r} has no series or attribute {name!r}; series: {sorted(meters)}")

    def get_dict(self) -> dict[str, str]:
        """Each series as text, ``median (mean of the run)`` with 4 decimals."""
        return {name: f"{meter.median:.4f} ({meter.global_avg:.4f})" for name, meter in self.meters.items()}

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Plain data of every series, for a checkpoint."""
        return {
            name: {"window": list(meter.deque), "total": meter.total, "count": meter.count}
            for name, meter in self.meters.items()
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take back what ``state_dict`` gave."""
        for name, saved in state.items():
            meter = self.meters.setdefault(name, SmoothedValue())
            meter.deque.extend(saved["window"])
            meter.total, meter.count = saved["total"], saved["count"]

    def __str__(self) -> str:
        return self.delimiter.join(f"{name}: {text}" for name, text in self.get_dict().items())


def peak_memory_mib(device: torch.device) -> float:
    """Most memory used so far, in MiB: of the allocator on CUDA, resident memory of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return float("nan")  # the standard library does not know it there
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB
