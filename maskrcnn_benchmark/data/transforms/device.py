"""Normalisation of a whole batch where the network runs: the workers then hand over bytes, a quarter of the memory."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.data.transforms.transforms import Normalize
from maskrcnn_benchmark.structures.image_list import ImageList


class DeviceNormalize:
    """What `Normalize` does to each image, to the last bit, for a padded batch on its device. It never waits for it.

    Args:
        normalize: holds mean, deviation and order of the channels.
        device: of the batches.
    """

    def __init__(self, normalize: Normalize, device: torch.device | str) -> None:
        self.mean = torch.from_numpy(normalize.mean).reshape(1, 3, 1, 1).to(device)
        self.std = torch.from_numpy(normalize.std).reshape(1, 3, 1, 1).to(device)
        self.divides = bool((normalize.std != 1).any())
        self.reverses = normalize.channels == (2, 1, 0)

    def __call__(self, images: ImageList) -> ImageList:
        """Return float32 images [N, 3, H, W] of pixels uint8 [N, 3, H, W] in BGR; images that are floats stay.

        The layout is kept. Beside and below each image there are zeros, whatever is there in the pixels.
        """
        pixels = images.tensors
        if pixels.dtype != torch.uint8:
            return images
        if self.reverses:
            pixels = pixels.flip(1)
        out = torch.sub(pixels, self.mean)
        if self.divides:
            out /= self.std
        return ImageList(out.masked_fill_(_outside(images.sizes, out), 0.0), images.image_sizes, images.sizes)


def _outside(sizes: Tensor, images: Tensor) -> Tensor:
    """[N, 1, H, W] bool: which pixels lie beyond the sizes [N, 2] of the images [N, C, H, W]."""
    height, width = images.shape[2:]
    below = torch.arange(height, device=images.device) >= sizes[:, :1]
    beside = torch.arange(width, device=images.device) >= sizes[:, 1:]
    return below[:, None, :, None] | beside[:, None, None, :]
