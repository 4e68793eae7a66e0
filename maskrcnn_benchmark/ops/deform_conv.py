"""Deformable convolution: each tap of the kernel reads where an offset of its own moves it, between pixels.

Sources: Dai et al., Deformable Convolutional Networks (2017); with masks Zhu et al., Deformable ConvNets v2 (2019).
N images, C channels, H W, O output channels, K = kh * kw taps, D deformable groups, OH OW output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from maskrcnn_benchmark.ops._checks import accumulate_dtype, memory_format_of
from maskrcnn_benchmark.ops._deform_conv_plain import (
    check_arguments,
    deform_conv_backward_reference,
    deform_conv_reference,
    output_size,
)
from maskrcnn_benchmark.ops._library import LIB, define_op


def deform_conv(
    input: Tensor,  # [N, C, H, W]
    weight: Tensor,  # [O, C / groups, kh, kw]
    offset: Tensor,  # [N, D * K * 2, OH, OW]
    mask: Tensor | None = None,  # [N, D * K, OH, OW]
    bias: Tensor | None = None,  # [O]
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    deformable_groups: int = 1,
) -> Tensor:
    """The convolution of ``input``, whose taps are moved by ``offset`` and weighted by ``mask``. Differentiable.

    A tap between pixels reads them bilinearly; what lies outside the map counts as zero. The gradient of an offset at
    a whole number is that of the next larger ones. On CUDA the gradients of a pixel are added in any order, or under
    ``torch.use_deterministic_algorithms`` in that of the output pixels.

    Args:
        input: float32, float64, float16 or bfloat16, NCHW or channels_last; the result has the same layout and dtype.
            Sums run in float32 (float64 for float64).
        weight: is cast to the dtype of the input, as are the weights of a convolution under autocast.
        offset: y and x of each tap in pixels of the input, tap after tap; one for all channels of a deformable group.
            One that is not finite reads nothing.
        mask: factor of each tap; None for 1.
        bias: added to every pixel.
        stride, padding, dilation: (y, x), as of a convolution.
        groups: of the convolution.
        deformable_groups: D, parts of the channels with offsets of their own.

    Returns:
        [N, O, OH, OW].

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: a dtype that is not named above.
    """
    precise = accumulate_dtype(input.dtype)
    output = torch.ops.mrcnn.deform_conv(
        input,
        weight.to(input.dtype),
        offset.to(precise),
        None if mask is None else mask.to(precise),
        list(stride),
        list(padding),
        list(dilation),
        groups,
        deformable_groups,
    )
    if bias is None:
        return output
    return output + bias.to(output.dtype).reshape(1, -1, 1, 1)


_ARGUMENTS = (
    "Tensor input, Tensor weight, Tensor offset, Tensor? mask, int[2] stride, int[2] padding, int[2] dilation, "
    "int groups, int deformable_groups"
)
_FORWARD = define_op(f"deform_conv({_ARGUMENTS}) -> Tensor", deform_conv_reference)
_BACKWARD = define_op(
    f"deform_conv_backward(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    deform_conv_backward_reference,
)


@torch.library.register_fake(_FORWARD, lib=LIB)
def _fake_forward(
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
    check_arguments(input, weight, offset, mask, stride, padding, dilation, groups, deformable_groups)
    size = output_size(input.shape[2:], weight.shape[2:], stride, padding, dilation)
    shape = (input.shape[0], weight.shape[0], *size)
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=memory_format_of(input))


def _empty_like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=memory_format_of(tensor))


@torch.library.register_fake(_BACKWARD, lib=LIB)
def _fake_backward(
    grad: Tensor, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_arguments(input, weight, offset, mask, *arguments)
    mask_grad = offset.new_empty(0) if mask is None else _empty_like(mask)
    return _empty_like(input), _empty_like(weight), _empty_like(offset), mask_grad


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.arguments = inputs[4:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grads = torch.ops.mrcnn.deform_conv_backward(grad, *ctx.saved_tensors, *ctx.arguments)
    mask_grad = None if ctx.saved_tensors[3] is None else grads[3]
    return *grads[:3], mask_grad, None, None, None, None, None


torch.library.register_autograd(_FORWARD, _backward, setup_context=_setup_context, lib=LIB)


@register_flop_formula(torch.ops.mrcnn.deform_conv)
def _count_flops(input: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Of the matrix product, from shapes, as for an ordinary convolution."""
    return 2 * out_shape[0] * out_shape[2] * out_shape[3] * math.prod(weight)


@register_flop_formula(torch.ops.mrcnn.deform_conv_backward)
def _count_backward_flops(grad: Sequence[int], input: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """Of the two matrix products."""
    return 4 * grad[0] * grad[2] * grad[3] * math.prod(weight)
