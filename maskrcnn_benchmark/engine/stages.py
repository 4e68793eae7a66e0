"""Where the time, or another quantity, of a step goes: stages are measured from outside, by hooks that come off again.

A network that nobody measures carries none of this.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import nn
from torch.profiler import record_function
from torch.utils.flop_counter import FlopCounterMode

OTHER = "other"  # what lies between the stages of a step


class Clock(Protocol):
    """Says how far a quantity has come."""

    def mark(self) -> Any:
        """The present state, without waiting for a device."""

    def between(self, begin: Any, end: Any) -> float:
        """The quantity between two marks; may wait for a device."""


class HostClock:
    """Milliseconds of the host: what a step takes on a CPU."""

    def mark(self) -> float:
        """The present time."""
        return time.perf_counter()

    def between(self, begin: float, end: float) -> float:
        """Milliseconds."""
        return (end - begin) * 1e3


class CudaClock:
    """Milliseconds between two points of the current stream of a GPU, idle time included.

    Args:
        device: whose stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> torch.cuda.Event:
        """An event at the end of what the stream has been given until now."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Milliseconds; waits for the later event."""
        end.synchronize()
        return begin.elapsed_time(end)


class FlopClock:
    """Floating-point operations of convolutions and matrix products.

    Args:
        counter: counts while it is active.
    """

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter = counter

    def mark(self) -> int:
        """The count until now."""
        return self.counter.get_total_flops()

    def between(self, begin: int, end: int) -> float:
        """Operations; a multiplication and an addition are two."""
        return end - begin


def make_clock(device: torch.device) -> Clock:
    """The clock of steps that run on a device."""
    return CudaClock(device) if device.type == "cuda" else HostClock()


class StageRecorder:
    """Collects marks around the named stages of steps.

    A stage may come several times in a step; its parts are added. Stages must not overlap, or the rest that is called
    "other" would be too small. Each stage is also a range for torch's profiler and, on a GPU, for NVTX.

    Args:
        clock: what is measured.
        mark_ranges: announce each stage to NVTX.
    """

    def __init__(self, clock: Clock, *, mark_ranges: bool = False) -> None:
        self.clock = clock
        self.mark_ranges = mark_ranges
        self._open: dict[str, tuple[Any, Any]] = {}
        self._marks: list[tuple[str, Any, Any]] = []
        self._step_begin: Any = None
        self._steps: list[tuple[Any, Any, list[tuple[str, Any, Any]]]] = []
        self._undo: list[Callable[[], Any]] = []

    def begin_step(self) -> None:
        """A step begins."""
        self._marks, self._step_begin = [], self.clock.mark()

    def end_step(self) -> None:
        """It ends; stages that are still open end with it."""
        for name in list(self._open):
            self.end(name)
        self._steps.append((self._step_begin, self.clock.mark(), self._marks))

    def begin(self, name: str) -> None:
        """A stage begins; `end` has to follow."""
        if self.mark_ranges:
            torch.cuda.nvtx.range_push(name)
        shown = record_function(name)
        shown.__enter__()
        self._open[name] = (self.clock.mark(), shown)

    def end(self, name: str) -> None:
        """It ends."""
        begin, shown = self._open.pop(name)
        self._marks.append((name, begin, self.clock.mark()))
        shown.__exit__(None, None, None)
        if self.mark_ranges:
            torch.cuda.nvtx.range_pop()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What happens inside is a stage."""
        self.begin(name)
        try:
            yield
        finally:
            self.end(name)

    def watch_module(self, module: nn.Module, name: str) -> None:
        """Each forward pass of a module is a stage, until `detach`."""
        before = module.register_forward_pre_hook(lambda *_: self.begin(name))
        after = module.register_forward_hook(lambda *_: self.end(name))
        self._undo += [before.remove, after.remove]

    def watch_call(
        self, owner: Any, attribute: str, name: str, *, observe: Callable[[Any], None] | None = None
    ) -> None:
        """Each call of ``owner.attribute``, a method of an object or a function of a module, is a stage until `detach`.

        Args:
            owner, attribute: where callers look the function up.
            name: of the stage.
            observe: is given each result, outside the stage.
        """
        original = getattr(owner, attribute)
        own = attribute in vars(owner)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                result = original(*args, **kwargs)
            if observe is not None:
                observe(result)
            return result

        setattr(owner, attribute, watched)
        self._undo.append(lambda: setattr(owner, attribute, original) if own else delattr(owner, attribute))

    def watch_backward(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """From the end of the forward pass to the optimiser is "backward", its step is "optimizer", until `detach`.

        The backward stage has the loss scaler's check for overflow in it.
        """

        def update_begins(*_: Any) -> None:
            if "backward" in self._open:
                self.end("backward")
            self.begin("optimizer")

        forward_ends = model.register_forward_hook(lambda *_: self.begin("backward"))
        before = optimizer.register_step_pre_hook(update_begins)
        after = optimizer.register_step_post_hook(lambda *_: self.end("optimizer"))
        self._undo += [forward_ends.remove, before.remove, after.remove]

    def detach(self) -> None:
        """Take every hook off."""
        for undo in reversed(self._undo):
            undo()
        self._undo = []

    def read(self) -> list[dict[str, float]]:
        """The quantity of each stage, step by step, with "other"; waits for the device."""
        rows = []
        for begin, end, marks in self._steps:
            row: dict[str, float] = {}
            for name, *ends in marks:
                row[name] = row.get(name, 0.0) + self.clock.between(*ends)
            row[OTHER] = self.clock.between(begin, end) - sum(row.values())
            rows.append(row)
        return rows


def mean_stages(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each stage over steps, in the order of their first appearance, "other" last."""
    names = dict.fromkeys(name for row in rows for name in row if name != OTHER)
    return {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in (*names, OTHER)} if rows else {}
