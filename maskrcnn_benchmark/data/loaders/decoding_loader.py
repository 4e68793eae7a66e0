"""From encoded batches to what the plain loader yields, some batches ahead."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from maskrcnn_benchmark.data.datasets.base import DetectionDataset
from maskrcnn_benchmark.data.loaders.encoded import BatchReader, Decoder, EncodedBatch, PixelBatch, UndecodableError
from maskrcnn_benchmark.data.loaders.watched import WatchedLoader
from maskrcnn_benchmark.structures.image_list import ImageList

logger = logging.getLogger(__name__)


class DecodingLoader:
    """Iterates over (ImageList, Targets, tuple of dataset indices), as the plain loader does.

    Worker processes read files and prepare targets; the decoder works in threads of this process. A batch that it
    cannot decode is made by OpenCV instead, with the errors of the plain loader, which name the file.

    Args:
        loader: yields the batches of ``reader`` in their order.
        reader: makes them.
        decode: makes their pixels. On a GPU these lie there; images that OpenCV has decoded come in host memory.
        normalize: pixels to the network's input, on the device that it holds; None: images stay pixels, for
            `DeviceNormalize`.
        device: where ``normalize`` works.
        ahead: batches that are decoded at the same time, each in a thread; 0: each when it is asked for, in none.

    Attributes:
        dataset: where the samples come from.
    """

    def __init__(
        self,
        loader: WatchedLoader,
        reader: BatchReader,
        decode: Decoder,
        *,
        normalize: Callable[[ImageList], ImageList] | None = None,
        device: torch.device | str = "cpu",
        ahead: int = 2,
    ) -> None:
        self.loader = loader
        self.reader = reader
        self.decode = decode
        self.normalize = normalize
        self.device = device
        self.ahead = ahead

    @property
    def dataset(self) -> DetectionDataset:
        """Where the samples come from."""
        return self.reader.dataset

    def __len__(self) -> int:
        """Number of batches; see `IterationBasedBatchSampler` for training."""
        return len(self.loader)

    def close(self) -> None:
        """End the worker processes; another iteration starts new ones."""
        self.loader.close()

    def __iter__(self) -> Iterator[PixelBatch]:
        if not self.ahead:
            yield from (self._finished(self._pixels(batch)) for batch in self.loader)
            return
        with ThreadPoolExecutor(self.ahead, thread_name_prefix="decode") as pool:
            begun: deque[Future[PixelBatch]] = deque()
            try:
                for future in self._futures(pool):
                    begun.append(future)
                    if len(begun) > self.ahead:
                        yield self._finished(begun.popleft().result())
                while begun:
                    yield self._finished(begun.popleft().result())
            finally:
                for future in begun:
                    future.cancel()

    def _futures(self, pool: ThreadPoolExecutor) -> Iterator[Future[PixelBatch]]:
        """Begin one batch after the other. An error of the loader takes the place of its batch, and is the last."""
        try:
            for batch in self.loader:
                yield pool.submit(self._pixels, batch)
        except Exception as error:
            failed: Future[PixelBatch] = Future()
            failed.set_exception(error)
            yield failed

    def _pixels(self, batch: EncodedBatch | PixelBatch) -> PixelBatch:
        if not isinstance(batch, EncodedBatch):
            return batch
        try:
            return self.decode(batch), batch.targets, batch.indices
        except UndecodableError as error:
            logger.warning(
                "%s cannot decode the batch of samples %s (%s); OpenCV decodes it instead",
                type(self.decode).__name__,
                batch.indices,
                error,
            )
            return self.reader.decoded(batch.keys)

    def _finished(self, batch: PixelBatch) -> PixelBatch:
        """The batch as it is handed out, on the stream of the caller."""
        images, targets, indices = batch
        if self.normalize is None:
            return batch
        images = self.normalize(images.to(self.device, non_blocking=True))
        return ImageList(images.tensors.contiguous(), images.image_sizes, images.sizes), targets, indices
