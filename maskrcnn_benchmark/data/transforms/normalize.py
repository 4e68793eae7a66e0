"""Pixels to the network's input, on the host or where the network runs, so that workers hand over bytes only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.ops import normalize_images
from maskrcnn_benchmark.structures.image_list import ImageList


class Normalize:
    """Pixels uint8 in BGR to the network's input float32, mean subtracted and divided by the deviation.

    Args:
        mean: of the three channels of the output.
        std: of the three channels of the output.
        to_bgr255: True keeps BGR in 0 .. 255; False gives RGB in 0 .. 1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, to_bgr255: bool = True) -> None:
        unit = np.float32(1.0 if to_bgr255 else 255.0)
        self.mean = np.asarray(mean, dtype=np.float32) * unit
        self.std = np.asarray(std, dtype=np.float32) * unit
        self.channels = (0, 1, 2) if to_bgr255 else (2, 1, 0)

    def batch(self, images: ImageList) -> ImageList:
        """Normalise padded pixels [N, 3, H, W] of the host; the result is contiguous."""
        return DeviceNormalize(self, "cpu")(images, torch.contiguous_format)

    def __call__(self, image: np.ndarray) -> Tensor:
        """Normalise ``image`` [H, W, 3] into a new tensor [3, H, W]."""
        pixels = torch.from_numpy(np.require(image, requirements="CW")).permute(2, 0, 1)[None]
        return self.batch(ImageList(pixels, [image.shape[:2]])).tensors[0]


class DeviceNormalize:
    """What `Normalize` does to each image, to the last bit, for a padded batch on its device. It never waits for it.

    Args:
        normalize: holds mean, deviation and order of the channels.
        device: of the batches.
    """

    def __init__(self, normalize: Normalize, device: torch.device | str) -> None:
        self.mean = torch.from_numpy(normalize.mean).to(device)
        self.std = torch.from_numpy(normalize.std).to(device) if (normalize.std != 1).any() else None
        self.reverses = normalize.channels == (2, 1, 0)

    def __call__(self, images: ImageList, memory_format: torch.memory_format | None = None) -> ImageList:
        """Return float32 images [N, 3, H, W] of pixels uint8 [N, 3, H, W] in BGR; images that are floats stay.

        Beside and below each image there are zeros, whatever is there in the pixels. ``memory_format`` is that of the
        result, contiguous or channels_last; None keeps the one of the pixels.
        """
        pixels = images.tensors
        if pixels.dtype != torch.uint8:
            return images
        if memory_format is None:
            memory_format = torch.contiguous_format if pixels.is_contiguous() else torch.channels_last
        out = normalize_images(
            pixels, images.sizes, mean=self.mean, std=self.std, reverse=self.reverses, memory_format=memory_format
        )
        return ImageList(out, images.image_sizes, images.sizes)
