"""ImageList: images of different sizes padded into one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class ImageList:
    """A batch of padded images with the sizes that they had.

    Args:
        tensors: [N, C, H, W] images, each in the top left corner, zeros beside and below it.
        image_sizes: N pairs (height, width) in pixels.
        sizes: the same as a tensor; made here unless given.

    Attributes:
        sizes: int64 [N, 2], the image sizes on the device of ``tensors``. They travel with the batch, because a tensor
            made of host numbers in the middle of a step would make the host wait for the device.
    """

    def __init__(self, tensors: Tensor, image_sizes: Sequence[tuple[int, int]], sizes: Tensor | None = None) -> None:
        self.tensors = tensors
        self.image_sizes = image_sizes
        if sizes is None:
            sizes = torch.tensor([tuple(size) for size in image_sizes], dtype=torch.int64).reshape(-1, 2)
        self.sizes = sizes.to(tensors.device, non_blocking=True)

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """Return the batch with ``tensors.to(...)``; the sizes follow to its device."""
        return ImageList(self.tensors.to(*args, **kwargs), self.image_sizes, self.sizes)

    def pin_memory(self) -> ImageList:
        """Return the batch in page-locked memory, from which copies to a GPU overlap with work."""
        return ImageList(self.tensors.pin_memory(), self.image_sizes, self.sizes.pin_memory())

    def __len__(self) -> int:
        return len(self.image_sizes)


def padded_size(
    image_sizes: Sequence[tuple[int, int]], size_divisible: int = 0, shapes: Sequence[tuple[int, int]] = ()
) -> tuple[int, int]:
    """The (height, width) to which a batch of images is padded.

    Args:
        image_sizes: (height, width) of the images.
        size_divisible: both lengths are multiples of it; 0 pads to the largest image only.
        shapes: the smallest of these that holds all images is taken, if there is one.
    """
    height, width = (max(lengths) for lengths in zip(*image_sizes, strict=True))
    fitting = [shape for shape in shapes if shape[0] >= height and shape[1] >= width]
    if fitting:
        return min(fitting, key=math.prod)
    step = max(size_divisible, 1)
    return -(-height // step) * step, -(-width // step) * step


def to_image_list(
    tensors: Tensor | Sequence[Tensor] | ImageList,
    size_divisible: int = 0,
    *,
    shapes: Sequence[tuple[int, int]] = (),
) -> ImageList:
    """Pad images to one size and stack them.

    Args:
        tensors: images [C, Hi, Wi] in a list, one image [C, H, W], a batch [N, C, H, W], or an ImageList, which is
            returned as it is.
        size_divisible, shapes: see `padded_size`.

    Raises:
        TypeError: for anything else. ValueError: for no images, or images of different types or channel counts.
    """
    if isinstance(tensors, ImageList):
        return tensors
    if isinstance(tensors, Tensor) and tensors.ndim in (3, 4):
        tensors = tensors.unsqueeze(0) if tensors.ndim == 3 else tensors
        batch = tensors
    elif isinstance(tensors, (list, tuple)) and all(isinstance(t, Tensor) and t.ndim == 3 for t in tensors):
        batch = None
    else:
        raise TypeError(
            f"expected images [C, H, W], a batch [N, C, H, W] or an ImageList, but got {_describe(tensors)}"
        )
    if len(tensors) == 0:
        raise ValueError("a batch needs at least one image, but got none")
    first = tensors[0]
    if any(t.shape[0] != first.shape[0] or t.dtype != first.dtype for t in tensors):
        raise ValueError(f"images of one batch must agree in channels and type, but are {_describe(tensors)}")
    image_sizes = [(t.shape[-2], t.shape[-1]) for t in tensors]
    height, width = padded_size(image_sizes, size_divisible, shapes)
    if batch is None or batch.shape[-2:] != (height, width):
        batch = first.new_zeros((len(image_sizes), first.shape[0], height, width))
        for image, padded in zip(tensors, batch, strict=True):
            padded[:, : image.shape[-2], : image.shape[-1]].copy_(image)
    return ImageList(batch, image_sizes)


def _describe(images: Any) -> str:
    """Say in a few words what was given."""
    if isinstance(images, Tensor):
        return f"a tensor of shape {list(images.shape)}"
    if isinstance(images, (list, tuple)):
        return ", ".join(
            f"{t.dtype} {list(t.shape)}" if isinstance(t, torch.Tensor) else type(t).__name__ for t in images
        )
    return type(images).__name__
