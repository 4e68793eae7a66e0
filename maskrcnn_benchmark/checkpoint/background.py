"""Work that goes on beside the training: a copy of the state, and one thread at a time that writes it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def copy_to_host(data: Any) -> Any:
    """A deep copy with every tensor in host memory, which later changes of ``data`` do not reach.

    The copies from a GPU run one after the other without the host, which waits once for all of them.

    Args:
        data: mappings, lists and tuples of tensors and plain values.
    """
    copies: dict[int, Any] = {}
    devices = set()
    for tensor in _tensors(data):
        if tensor.device.type == "cpu":
            copies[id(tensor)] = tensor.detach().clone()
        else:
            pinned = torch.empty_like(tensor, device="cpu", pin_memory=True)
            copies[id(tensor)] = pinned.copy_(tensor.detach(), non_blocking=True)
            devices.add(tensor.device)
    for device in devices:
        torch.cuda.current_stream(device).synchronize()
    return copy.deepcopy(data, copies)  # finds the tensors copied already


def _tensors(data: Any) -> Iterator[Tensor]:
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from _tensors(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _tensors(value)


class Background:
    """One job at a time in a thread. The program does not end before the job has."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Wait for the job before, then start this one."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(job,), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when no job runs; raises what the last one raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # for the thread that waits
            self._error = error
