"""Pixels to the network's input, in one pass over memory. N images, H and W of the padded batch."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.ops._checks import check_dtype, check_same_device, check_shape
from maskrcnn_benchmark.ops._library import LIB, define_op

_OP = "normalize_images"


def normalize_images(
    pixels: Tensor,  # [N, 3, H, W]
    sizes: Tensor,  # [N, 2]
    *,
    mean: Tensor,  # [3]
    std: Tensor | None = None,  # [3]
    reverse: bool = False,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """(pixel - mean) / std inside each image, 0 beside and below it, whatever is there in the pixels.

    Rounded after the subtraction and after the division: the same bits on every device, for every layout and number of
    threads.

    Args:
        pixels: uint8, each image in the top left corner; any layout, channels_last is read fastest.
        sizes: int64 (height, width) of the images.
        mean: float32, of the channels of the output.
        std: likewise; None does not divide.
        reverse: turn the order of the channels round.
        memory_format: of the output, contiguous or channels_last.

    Returns:
        float32 [N, 3, H, W] on the device of the pixels; it carries no gradient.

    Raises:
        ValueError: shapes that do not fit, or tensors on different devices.
        TypeError: a dtype that is not the one above.
    """
    channels_last = memory_format == torch.channels_last
    return torch.ops.mrcnn.normalize_images(pixels, sizes, mean, std, reverse, channels_last)


def _check(pixels: Tensor, sizes: Tensor, mean: Tensor, std: Tensor | None) -> None:
    check_shape(pixels, _OP, "pixels", ("N", 3, "H", "W"))
    check_dtype(pixels, _OP, "pixels", (torch.uint8,))
    check_shape(sizes, _OP, "sizes", (pixels.shape[0], 2))
    check_dtype(sizes, _OP, "sizes", (torch.int64,))
    for name, values in (("mean", mean), ("std", mean if std is None else std)):
        check_shape(values, _OP, name, (3,))
        check_dtype(values, _OP, name, (torch.float32,))
    check_same_device(_OP, pixels=pixels, sizes=sizes, mean=mean, std=mean if std is None else std)


def _outside(sizes: Tensor, height: int, width: int) -> Tensor:
    """[N, 1, H, W] bool: which pixels lie beyond the sizes [N, 2]."""
    below = torch.arange(height, device=sizes.device) >= sizes[:, :1]
    beside = torch.arange(width, device=sizes.device) >= sizes[:, 1:]
    return below[:, None, :, None] | beside[:, None, None, :]


def normalize_images_reference(
    pixels: Tensor, sizes: Tensor, mean: Tensor, std: Tensor | None, reverse: bool, channels_last: bool
) -> Tensor:
    """The op ``mrcnn::normalize_images`` in plain PyTorch."""
    _check(pixels, sizes, mean, std)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pixels = (pixels.flip(1) if reverse else pixels).contiguous(memory_format=layout)  # as bytes, a quarter of the work
    output = torch.sub(pixels, mean[:, None, None])
    if std is not None:
        output /= std[:, None, None]
    return output.masked_fill_(_outside(sizes, *pixels.shape[2:]), 0.0)


_NORMALIZE_IMAGES = define_op(
    "normalize_images(Tensor pixels, Tensor sizes, Tensor mean, Tensor? std, bool reverse, bool channels_last)"
    " -> Tensor",
    normalize_images_reference,
)


@torch.library.register_fake(_NORMALIZE_IMAGES, lib=LIB)
def _fake(
    pixels: Tensor, sizes: Tensor, mean: Tensor, std: Tensor | None, reverse: bool, channels_last: bool
) -> Tensor:
    _check(pixels, sizes, mean, std)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device, memory_format=layout)
