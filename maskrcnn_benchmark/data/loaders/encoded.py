"""Batches before decoding: the bytes of the files, what is to become of them, and the targets, which are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from maskrcnn_benchmark.data.collate_batch import BatchCollator, pack_targets
from maskrcnn_benchmark.data.datasets.base import DetectionDataset, defines_together
from maskrcnn_benchmark.data.datasets.concat_dataset import ConcatDataset
from maskrcnn_benchmark.data.image_io import is_truncated
from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.data.loaders.jpeg_header import plain_jpeg_size
from maskrcnn_benchmark.data.read_watch import read_bytes
from maskrcnn_benchmark.data.transforms import Compose
from maskrcnn_benchmark.structures.image_list import ImageList, padded_size
from maskrcnn_benchmark.structures.targets import Targets

PixelBatch = tuple[ImageList, Targets, tuple[int, ...]]


class UndecodableError(RuntimeError):
    """A decoder cannot make pixels of one of the files of a batch; OpenCV shall try."""


@dataclass(frozen=True)
class EncodedBatch:
    """N images that a decoder turns into pixels.

    Attributes:
        keys: of the samples.
        data: uint8 [B], the JPEG files one after the other.
        lengths: bytes of each file.
        mirrored: for each image, whether it is mirrored left to right and top to bottom after it is scaled.
        shape: (height, width) of the padded batch.
        targets: in the scaled and mirrored images, whose sizes are ``targets.image_sizes``.
    """

    keys: list[SampleKey]
    data: Tensor
    lengths: list[int]
    mirrored: list[tuple[bool, bool]]
    shape: tuple[int, int]
    targets: Targets

    @property
    def indices(self) -> tuple[int, ...]:
        """Of the samples in their data set."""
        return tuple(key.index for key in self.keys)

    def files(self) -> tuple[Tensor, ...]:
        """The files, each uint8 [B_n]."""
        return self.data.split(self.lengths)

    def __len__(self) -> int:
        return len(self.keys)

    def pin_memory(self) -> EncodedBatch:
        """Return the batch with its targets in page-locked memory; the files are read by the host."""
        return replace(self, targets=self.targets.pin_memory())


def why_not_encoded(dataset: Any) -> str:
    """Why images of a data set cannot be decoded by others than OpenCV, as part of a sentence; "" when they can."""
    if type(dataset) is ConcatDataset:
        return next(filter(None, map(why_not_encoded, dataset.datasets)), "")
    cls = type(dataset)
    reads_as_usual = isinstance(dataset, DetectionDataset) and cls.__getitem__ is DetectionDataset.__getitem__
    # A class that changes how images are read must not be passed by.
    if not reads_as_usual or not defines_together(cls, "load_image", "image_path"):
        return f"{cls.__name__} reads its images in its own way"
    if not isinstance(dataset.transforms, Compose):
        return f"{cls.__name__} has transforms of its own"
    if dataset.transforms.colour:
        return "colours are changed (INPUT.BRIGHTNESS, CONTRAST, SATURATION, HUE), which OpenCV does"
    if not dataset.transforms.only_moves:
        return f"{cls.__name__} has transforms of its own"
    return ""


Decoder = Callable[[EncodedBatch], ImageList]  # may raise UndecodableError


class BatchReader(Dataset):
    """``reader[keys]`` is the batch of some samples: encoded, or pixels where not all of them are plain JPEG files.

    Args:
        dataset: one for which `why_not_encoded` finds nothing.
        collate: makes a batch of pixels, and says how batches are padded.
    """

    def __init__(self, dataset: DetectionDataset, collate: BatchCollator) -> None:
        self.dataset = dataset
        self.collate = collate

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, keys: Sequence[SampleKey]) -> EncodedBatch | PixelBatch:
        samples = []
        for key in keys:
            sample = _encoded_sample(self.dataset, key)
            if sample is None:
                return self.decoded(keys)
            samples.append(sample)
        files, targets, mirrored = zip(*samples, strict=True)
        packed = pack_targets(targets)
        return EncodedBatch(
            keys=list(keys),
            data=torch.from_numpy(np.frombuffer(b"".join(files), dtype=np.uint8).copy()),
            lengths=[len(file) for file in files],
            mirrored=list(mirrored),
            shape=padded_size(packed.image_sizes, self.collate.size_divisible, self.collate.shapes),
            targets=packed,
        )

    def decoded(self, keys: Sequence[SampleKey]) -> PixelBatch:
        """The batch of some samples as the workers of the plain loader make it, with their errors."""
        return self.collate([self.dataset[key] for key in keys])


def _encoded_sample(dataset: DetectionDataset, key: SampleKey) -> tuple[bytes, ImageTargets, tuple[bool, bool]] | None:
    """File, transformed objects and mirroring of a sample; None when the file is missing, odd or not whole."""
    index = key.index
    while isinstance(dataset, ConcatDataset):
        number, index = dataset.get_idxs(index)
        dataset = dataset.datasets[number]
    try:
        data = read_bytes(dataset.image_path(index))
    except OSError:
        return None
    info = dataset.get_img_info(index)
    if plain_jpeg_size(data) != (info["height"], info["width"]) or is_truncated(data):
        return None
    targets, mirrored = dataset.transforms.transform_targets(dataset.load_targets(index), SampleKey(key.epoch, index))
    return data, targets, mirrored
