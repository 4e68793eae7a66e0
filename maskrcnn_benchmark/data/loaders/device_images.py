"""Images that were made on a stream of their own, and how they get to the stream that uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from maskrcnn_benchmark.structures.image_list import ImageList


class OwnStream:
    """A stream for what is made beside the training; nothing on a CPU.

    One for all threads of a decoder: PyTorch keeps the memory of each stream apart.

    Args:
        device: where things are made.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def __call__(self) -> Iterator[torch.cuda.Stream | None]:
        """Run a block on the stream and wait for it: after it, what was made is there for every stream.

        A thread of a loader may wait; the training's does not.
        """
        if self.stream is None:
            yield None
            return
        with torch.cuda.stream(self.stream):
            yield self.stream
        self.stream.synchronize()


class DeviceImages(ImageList):
    """An ImageList that may have been made on another stream of a GPU than the present one; see `ImageList`.

    Its memory goes back to the stream that it was made on, so a stream that reads it has to say so. On a GPU `to` does,
    and gives images that belong to the present stream alone: a copy on the device, some microseconds.
    """

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """Return the batch with ``tensors.to(...)``, on a GPU in memory of the present stream."""
        if not self.tensors.is_cuda:
            return super().to(*args, **kwargs)
        stream = torch.cuda.current_stream(self.tensors.device)
        self.tensors.record_stream(stream)
        self.sizes.record_stream(stream)
        return ImageList(self.tensors.to(*args, copy=True, **kwargs), self.image_sizes, self.sizes.clone())
