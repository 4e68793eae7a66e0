"""Deformable convolution in plain PyTorch: the reference of the compiled kernels, and their fallback on every device.

N images, C channels, H W, O output channels, K = kh * kw taps, D deformable groups, P = OH * OW output pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maskrcnn_benchmark.ops._checks import (
    FLOATING,
    accumulate_dtype,
    check_dtype,
    check_same_device,
    check_shape,
    check_value,
    memory_format_of,
)

OP = "deform_conv"


def output_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int]:
    """(OH, OW) of a convolution over a map of ``size`` (H, W)."""
    height, width = (
        (size[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    )
    return height, width


def check_arguments(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deformable_groups: int,
) -> None:
    """Raises ValueError or TypeError where the arguments of the op do not fit together."""
    check_shape(input, OP, "input", ("N", "C", "H", "W"))
    check_dtype(input, OP, "input", FLOATING)
    for name, value, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        fits = len(value) == 2 and min(value) >= least
        check_value(fits, OP, f"{name} must be two numbers of at least {least}, got {list(value)}")
    channels = input.shape[1]
    divides = groups > 0 and deformable_groups > 0 and channels % groups == 0 and channels % deformable_groups == 0
    text = f"{channels} channels must divide into groups ({groups}) and deformable_groups ({deformable_groups})"
    check_value(divides, OP, text)
    check_shape(weight, OP, "weight", ("O", channels // groups, "kh", "kw"))
    check_dtype(weight, OP, "weight", (input.dtype,))
    divides = weight.shape[0] % groups == 0
    check_value(divides, OP, f"{weight.shape[0]} output channels must divide into groups ({groups})")
    kernel = weight.shape[2:]
    size = output_size(input.shape[2:], kernel, stride, padding, dilation)
    fits = kernel[0] > 0 and kernel[1] > 0 and size[0] > 0 and size[1] > 0
    check_value(fits, OP, f"the kernel {list(kernel)} does not fit the padded input {list(input.shape)}")
    points = deformable_groups * kernel[0] * kernel[1]
    check_shape(offset, OP, "offset", (input.shape[0], 2 * points, *size))
    check_dtype(offset, OP, "offset", (accumulate_dtype(input.dtype),))
    if mask is None:
        check_same_device(OP, input=input, weight=weight, offset=offset)
        return
    check_shape(mask, OP, "mask", (input.shape[0], points, *size))
    check_dtype(mask, OP, "mask", (accumulate_dtype(input.dtype),))
    check_same_device(OP, input=input, weight=weight, offset=offset, mask=mask)


class _Samples(NamedTuple):
    """Where each tap of each output pixel reads, all of shape [N, D, K * P]; four corners, upper ones first."""

    places: list[Tensor]  # flat pixel of each corner; 0 for one outside
    inside: list[Tensor]  # whether the corner lies on the map
    weights: list[Tensor]  # bilinear, times the mask
    bilinear: list[Tensor]
    below: Tensor  # share of the lower corners
    right: Tensor  # share of the corners to the right


def _sample(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    deformable_groups: int,
) -> _Samples:
    num_images, _, height, width = input.shape
    rows, columns = (
        torch.arange(size, device=offset.device) * stride[axis] - padding[axis]
        for axis, size in enumerate(offset.shape[2:])
    )
    tap_rows, tap_columns = (
        torch.arange(size, device=offset.device) * dilation[axis] for axis, size in enumerate(kernel)
    )
    shifts = offset.reshape(num_images, deformable_groups, *kernel, 2, *offset.shape[2:])
    ys = (tap_rows[:, None, None, None] + rows[:, None]).to(offset.dtype) + shifts[:, :, :, :, 0]
    xs = (tap_columns[:, None, None] + columns).to(offset.dtype) + shifts[:, :, :, :, 1]
    ys, xs = (value.flatten(2) for value in (ys, xs))
    reads = (ys >= -1) & (ys < height) & (xs >= -1) & (xs < width)  # not where a coordinate is not a number
    ys, xs = torch.where(reads, ys, -1), torch.where(reads, xs, -1)
    top, left = ys.floor(), xs.floor()
    below, right = ys - top, xs - left
    places, inside, bilinear = [], [], []
    for down in (0, 1):
        for aside in (0, 1):
            y, x = top.to(torch.int64) + down, left.to(torch.int64) + aside
            inside.append(reads & (y >= 0) & (y < height) & (x >= 0) & (x < width))
            places.append(torch.where(inside[-1], y * width + x, 0))
            bilinear.append((below if down else 1 - below) * (right if aside else 1 - right))
    scale = 1 if mask is None else mask.reshape(below.shape)
    return _Samples(places, inside, [value * scale for value in bilinear], bilinear, below, right)


def _maps(input: Tensor, parts: int, dtype: torch.dtype) -> Tensor:
    """A map [N, C, H, W] as [N, parts, C / parts, H * W]."""
    num_images, channels, height, width = input.shape
    return input.to(dtype).reshape(num_images, parts, channels // parts, height * width)


def _corners(values: Tensor, samples: _Samples) -> list[Tensor]:
    """The values [N, D, C / D, K * P] at the four corners of each sample, from maps [N, D, C / D, H * W]."""
    return [
        values.gather(3, place[:, :, None].expand(-1, -1, values.shape[2], -1)).masked_fill(~inside[:, :, None], 0)
        for place, inside in zip(samples.places, samples.inside, strict=True)
    ]


def _columns(corners: Sequence[Tensor], samples: _Samples, groups: int, taps: int) -> Tensor:
    """What the taps read, [N, G, C / G * K, P]."""
    read = sum(value * weight[:, :, None] for value, weight in zip(corners, samples.weights, strict=True))
    num_images, parts, channels, points = read.shape
    return read.reshape(num_images, groups, parts * channels // groups * taps, points // taps)


def deform_conv_reference(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deformable_groups: int,
) -> Tensor:
    """The op ``mrcnn::deform_conv`` in plain PyTorch."""
    check_arguments(input, weight, offset, mask, stride, padding, dilation, groups, deformable_groups)
    taps = weight.shape[2] * weight.shape[3]
    samples = _sample(input, offset, mask, weight.shape[2:], stride, padding, dilation, deformable_groups)
    values = _maps(input, deformable_groups, offset.dtype)
    columns = _columns(_corners(values, samples), samples, groups, taps)
    kernels = weight.to(offset.dtype).reshape(groups, weight.shape[0] // groups, columns.shape[2])
    with torch.autocast(input.device.type, enabled=False):  # it would round the factors
        output = kernels @ columns
    output = output.reshape(input.shape[0], weight.shape[0], *offset.shape[2:])
    return output.to(input.dtype).contiguous(memory_format=memory_format_of(input))


def deform_conv_backward_reference(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deformable_groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The op ``mrcnn::deform_conv_backward`` in plain PyTorch: gradients of input, weight, offset and mask."""
    check_arguments(input, weight, offset, mask, stride, padding, dilation, groups, deformable_groups)
    taps = weight.shape[2] * weight.shape[3]
    samples = _sample(input, offset, mask, weight.shape[2:], stride, padding, dilation, deformable_groups)
    values = _maps(input, deformable_groups, offset.dtype)
    corners = _corners(values, samples)
    columns = _columns(corners, samples, groups, taps)
    kernels = weight.to(offset.dtype).reshape(groups, weight.shape[0] // groups, columns.shape[2])
    sums = _maps(grad, groups, offset.dtype)
    with torch.autocast(input.device.type, enabled=False):
        weight_grad = (sums @ columns.transpose(2, 3)).sum(0).reshape(weight.shape)
        columns_grad = (kernels.transpose(1, 2) @ sums).reshape(corners[0].shape)
    input_grad = torch.zeros_like(values)
    for place, inside, share in zip(samples.places, samples.inside, samples.weights, strict=True):
        index = place[:, :, None].expand_as(columns_grad)
        input_grad.scatter_add_(3, index, columns_grad * torch.where(inside, share, 0)[:, :, None])
    products = [(columns_grad * value).sum(2) for value in corners]  # [N, D, K * P]
    scale = 1 if mask is None else mask.reshape(products[0].shape)
    below, right = samples.below, samples.right
    y_grad = ((1 - right) * (products[2] - products[0]) + right * (products[3] - products[1])) * scale
    x_grad = ((1 - below) * (products[1] - products[0]) + below * (products[3] - products[2])) * scale
    shape = (input.shape[0], deformable_groups * taps, 1, *offset.shape[2:])
    offset_grad = torch.cat([y_grad.reshape(shape), x_grad.reshape(shape)], dim=2).reshape(offset.shape)
    mask_grad = offset.new_empty(0)
    if mask is not None:
        mask_grad = sum(product * share for product, share in zip(products, samples.bilinear, strict=True))
        mask_grad = mask_grad.reshape(mask.shape).contiguous(memory_format=memory_format_of(mask))
    return (
        input_grad.reshape(input.shape).to(input.dtype).contiguous(memory_format=memory_format_of(input)),
        weight_grad.to(weight.dtype).contiguous(memory_format=memory_format_of(weight)),
        offset_grad.contiguous(memory_format=memory_format_of(offset)),
        mask_grad,
    )
