"""A decoding loader from the config."""

from __future__ import annotations

from typing import Any

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.data.collate_batch import BatchCollator
from maskrcnn_benchmark.data.datasets.base import DetectionDataset
from maskrcnn_benchmark.data.loaders.backends import choose_backend, warn_once
from maskrcnn_benchmark.data.loaders.dali import DaliDecoder
from maskrcnn_benchmark.data.loaders.decoding_loader import DecodingLoader
from maskrcnn_benchmark.data.loaders.encoded import BatchReader, Decoder, why_not_encoded
from maskrcnn_benchmark.data.loaders.nvjpeg import NvjpegDecoder
from maskrcnn_benchmark.data.loaders.watched import WatchedLoader
from maskrcnn_benchmark.data.samplers import KeyedBatchSampler
from maskrcnn_benchmark.data.transforms import DeviceNormalize, build_transforms

_AHEAD = 2  # while one batch is on the device, the host prepares the other


def make_decoding_loader(
    cfg: CfgNode,
    dataset: DetectionDataset,
    batch_sampler: KeyedBatchSampler,
    *,
    keep_pixels: bool,
    **options: Any,
) -> DecodingLoader | None:
    """The loader that DATALOADER.HYBRID and BACKEND ask for; None: worker processes are to decode.

    Args:
        cfg: reads DATALOADER, MODEL.DEVICE and INPUT.
        dataset: where the samples come from.
        batch_sampler: which samples, in which order.
        keep_pixels: see `make_data_loader`.
        options: for the WatchedLoader whose workers read files and prepare targets.
    """
    device = torch.device(cfg.MODEL.DEVICE)
    backend = choose_backend(cfg.DATALOADER.BACKEND, hybrid=cfg.DATALOADER.HYBRID, device=device)
    if backend == "workers":
        return None
    reason = why_not_encoded(dataset)
    if reason:
        warn_once(f"images are decoded by OpenCV in worker processes, not by {backend}: {reason}")
        return None
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())  # the decoders' threads know no current device
    num_workers = cfg.DATALOADER.NUM_WORKERS
    collate = BatchCollator(cfg.DATALOADER.SIZE_DIVISIBILITY, shapes=cfg.INPUT.SHAPE_BUCKETS)
    reader = BatchReader(dataset, collate)
    decoder: Decoder
    if backend == "dali":
        decoder = DaliDecoder(device, num_threads=max(num_workers, 1))
    else:
        decoder = NvjpegDecoder(device)
    normalize = None if keep_pixels else DeviceNormalize(build_transforms(cfg, is_train=False).normalize, device)
    return DecodingLoader(
        # Batches come whole from the reader, so the batch sampler takes the place of the sampler.
        WatchedLoader(reader, sampler=batch_sampler, batch_size=None, collate_fn=_unchanged, **options),
        reader,
        decoder,
        normalize=normalize,
        device=device,
        ahead=_AHEAD if num_workers else 0,
    )


def _unchanged(batch: Any) -> Any:
    return batch
