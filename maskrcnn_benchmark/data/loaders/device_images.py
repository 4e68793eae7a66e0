"""Images that were made on a stream of their own, and how they get to the stream that uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from maskrcnn_benchmark.structures.image_list import ImageList


@contextmanager
def own_stream(device: torch.device) -> Iterator[torch.cuda.Stream | None]:
    """Run a block on a stream of its own and wait for it; None and nothing of that on a CPU.

    After it all that was made is there for every stream. A loader's thread may wait; the training's does not.
    """
    if device.type != "cuda":
        yield None
        return
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        yield stream
    stream.synchronize()


class DeviceImages(ImageList):
    """An ImageList whose tensors may belong to another stream than the present one; see `ImageList`.

    Their memory goes back to the stream that they were made on, so a stream that reads them has to say so. `to` does,
    and gives images that belong to the present stream alone: a copy on the device, some microseconds.
    """

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """Return a copy with ``tensors.to(...)`` in memory of the present stream."""
        if self.tensors.is_cuda:
            stream = torch.cuda.current_stream(self.tensors.device)
            self.tensors.record_stream(stream)
            self.sizes.record_stream(stream)
        return ImageList(self.tensors.to(*args, copy=True, **kwargs), self.image_sizes, self.sizes.clone())
