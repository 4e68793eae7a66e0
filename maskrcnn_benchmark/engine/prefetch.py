"""From the loader to the network: batches are copied to the device and prepared there.

On a GPU this happens on a stream of its own, while the step before computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.structures.image_list import ImageList

Batch = tuple[Any, Any, Any]  # images, targets, data set indices


@dataclass(frozen=True)
class Preparation:
    """What happens to a batch between the loader and the network; it never waits for the device.

    Args:
        precision: type and layout of the images.
        device: where the network is.
        normalize: pixels to the network's input of some layout, on the device; None: the loader gives that input.
    """

    precision: Precision
    device: torch.device
    normalize: Callable[[ImageList, torch.memory_format], ImageList] | None = None

    def images(self, images: ImageList) -> ImageList:
        """The network's input, on the device."""
        if self.normalize is None:
            return self.precision.place_images(images, self.device)
        images = self.normalize(images.to(self.device, non_blocking=True), self.precision.memory_format)
        return images.to(dtype=self.precision.dtype, memory_format=self.precision.memory_format)

    def __call__(self, batch: Batch) -> Batch:
        """A batch of the loader, ready for the network. Targets are packed, or a list of BoxLists."""
        images, targets, indices = batch
        if isinstance(targets, list | tuple):
            targets = [target.to(self.device) for target in targets]
        else:
            targets = targets.to(self.device, non_blocking=True)
        return self.images(images), targets, indices


class Prefetcher:
    """Iterates over a loader and gives prepared batches.

    On a GPU the next batch is fetched and its preparation begun before the present one is handed out. The order of the
    batches, and the iteration in which an error of the loader is raised, are those of the loader itself.

    Args:
        loader: yields batches; on a GPU in pinned memory, for copies that overlap.
        prepare: see `Preparation`.
        device: where batches go.
        overlap: prepare ahead, on a GPU; otherwise, and on a CPU, a batch is prepared when it is asked for.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        prepare: Callable[[Batch], Batch],
        device: torch.device,
        *,
        overlap: bool = True,
    ) -> None:
        self.loader = loader
        self.prepare = prepare
        self.side = _SideStream(device) if overlap and device.type == "cuda" else None

    def __iter__(self) -> Iterator[Batch]:
        if self.side is None:
            yield from map(self.prepare, self.loader)
            return
        iterator = iter(self.loader)
        ahead = self._begin(iterator, self.side)
        while ahead is not None:
            if isinstance(ahead, Exception):
                raise ahead
            present, ahead = ahead, self._begin(iterator, self.side)
            self.side.join(present.ready)
            yield present.batch

    def _begin(self, iterator: Iterator[Batch], side: _SideStream) -> _Begun | Exception | None:
        """Fetch a batch and begin to prepare it; None at the end. An error waits for the iteration it belongs to."""
        try:
            batch = next(iterator, None)
            return side.run(self.prepare, batch) if batch is not None else None
        except Exception as error:
            return error


@dataclass(frozen=True)
class _Begun:
    """A batch whose preparation is under way; it is over when the event has happened."""

    batch: Batch
    ready: torch.cuda.Event


class _SideStream:
    """A stream beside the one that the steps run on.

    What it prepares lies in memory of its own. It waits for the steps so far before it takes memory again, so what they
    read is never overwritten, whenever it was given back; ``record_stream`` would do the same, tensor by tensor.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def run(self, prepare: Callable[[Batch], Batch], batch: Batch) -> _Begun:
        """Start the preparation after what the steps' stream has been given until now."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            return _Begun(prepare(batch), self.stream.record_event())

    def join(self, ready: torch.cuda.Event) -> None:
        """Let the steps' stream wait until a batch is ready; the host does not wait."""
        torch.cuda.current_stream(self.device).wait_event(ready)
