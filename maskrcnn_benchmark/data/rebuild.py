"""A batch of a training run, made anew."""

from __future__ import annotations

from typing import Any

from maskrcnn_benchmark.data.loaders import DecodingLoader
from maskrcnn_benchmark.data.samplers import IterationBasedBatchSampler, KeyedBatchSampler


def rebuild_batch(loader: Any, iteration: int) -> Any:
    """The batch that a training loader gives in an iteration (from 1), decoded in this process.

    Everything random in it is keyed, so it is the same again; only where a loader decodes on a GPU do pixels differ by
    the rounding of OpenCV.

    Args:
        loader: of `make_data_loader`; it may be in the midst of its batches, and goes on as before.
        iteration: which.

    Returns:
        (ImageList, Targets, indices); None for a loader of another kind.

    Raises:
        OSError, ValueError: an image cannot be read.
    """
    inner = loader.loader if isinstance(loader, DecodingLoader) else loader
    keyed = getattr(inner, "sampler" if isinstance(loader, DecodingLoader) else "batch_sampler", None)
    batches = getattr(keyed, "batch_sampler", None)
    if not isinstance(keyed, KeyedBatchSampler) or not isinstance(batches, IterationBasedBatchSampler):
        return None
    again = IterationBasedBatchSampler(batches.batch_sampler, batches.num_iterations, start_iter=iteration - 1)
    keys = next(iter(KeyedBatchSampler(again)))
    if isinstance(loader, DecodingLoader):
        return loader.reader.decoded(keys)
    return inner.collate_fn([inner.dataset[key] for key in keys])
