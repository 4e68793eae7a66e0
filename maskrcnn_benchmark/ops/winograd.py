"""3x3 convolution with fewer multiplications: Winograd's F(6x6, 3x3), for CPUs.

A tile of 6x6 output pixels takes 64 products for each pair of channels instead of 324. The error is some 1e-5 of the
largest value, where a direct convolution has some 1e-7. Source: Lavin and Gray, Fast Algorithms for Convolutional
Neural Networks (2016). N images, C channels, H W, O output channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from maskrcnn_benchmark.ops._checks import check_dtype, check_same_device, check_shape, check_value, memory_format_of
from maskrcnn_benchmark.ops._library import LIB, define_op

_OP = "winograd_conv"
CHANNEL_BLOCK = 16  # channels come in multiples of it
LEAST_CHANNELS = 64  # with fewer the transforms cost more than the products
LEAST_PIXELS = 1000  # of all maps together; with fewer the transform of the filters does


def winograd_conv(
    input: Tensor,  # [N, C, H, W]
    weight: Tensor,  # [O, C, 3, 3]
    bias: Tensor | None = None,  # [O]
    *,
    scale: Tensor | None = None,  # [O]
    relu: bool = False,
) -> Tensor:
    """The convolution of ``input`` at stride 1 with one row of zeros around it. Differentiable once.

    The same bits for every number of threads.

    Args:
        input: float32; the result has the same layout. channels_last is read and written as it is, NCHW is copied.
        weight: float32, O and C multiples of 16.
        bias: added to every pixel.
        scale: factor of each output channel, before the bias.
        relu: negative values of the result become 0.

    Returns:
        [N, O, H, W].

    Raises:
        ValueError: shapes that do not fit together, or tensors on different devices.
        TypeError: a dtype other than float32.
    """
    if scale is not None and scale.requires_grad:  # rare: the op itself has no gradient for it
        weight, scale = weight * scale.reshape(-1, 1, 1, 1), None
    return torch.ops.mrcnn.winograd_conv(input, weight, scale, bias, relu)


def winograd_pays(input: Tensor, weight: Tensor) -> bool:
    """Whether `winograd_conv` is possible and faster than the ordinary convolution for these arguments.

    Never where the convolution becomes part of an exported program, and never under autocast to half precision.
    """
    outputs, channels = weight.shape[:2]
    return (
        input.device.type == "cpu"
        and _has_kernel()
        and input.dtype == weight.dtype == torch.float32
        and min(outputs, channels) >= LEAST_CHANNELS
        and outputs % CHANNEL_BLOCK == channels % CHANNEL_BLOCK == 0
        and input.shape[0] * input.shape[2] * input.shape[3] >= LEAST_PIXELS
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()
    )


def _has_kernel() -> bool:
    """Whether the compiled kernel is there, which also needs a processor with AVX2."""
    return torch._C._dispatch_has_kernel_for_dispatch_key("mrcnn::winograd_conv", "CPU")


# What torch.compiler.assume_constant_result does; that imports the compiler, which takes as long as importing torch.
_has_kernel._dynamo_marked_constant = True


def _check(input: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> None:
    check_shape(input, _OP, "input", ("N", "C", "H", "W"))
    check_shape(weight, _OP, "weight", ("O", input.shape[1], 3, 3))
    outputs, channels = weight.shape[:2]
    fits = outputs % CHANNEL_BLOCK == channels % CHANNEL_BLOCK == 0
    check_value(fits, _OP, f"channels must be multiples of {CHANNEL_BLOCK}, got {channels} and {outputs}")
    tensors = {"input": input, "weight": weight}
    for name, values in (("scale", scale), ("bias", bias)):
        if values is not None:
            check_shape(values, _OP, name, (outputs,))
            tensors[name] = values
    for name, tensor in tensors.items():
        check_dtype(tensor, _OP, name, (torch.float32,))
    check_same_device(_OP, **tensors)


def _check_grad(grad: Tensor, output: Tensor | None, input: Tensor, weight: Tensor) -> None:
    shape = (input.shape[0], weight.shape[0], *input.shape[2:])
    for name, tensor in (("grad", grad), ("output", grad if output is None else output)):
        check_shape(tensor, _OP, name, shape)
        check_dtype(tensor, _OP, name, (torch.float32,))
    check_same_device(_OP, grad=grad, output=grad if output is None else output, input=input)


def _scaled(weight: Tensor, scale: Tensor | None) -> Tensor:
    return weight if scale is None else weight * scale.reshape(-1, 1, 1, 1)


def winograd_conv_reference(
    input: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, relu: bool
) -> Tensor:
    """The op ``mrcnn::winograd_conv`` in plain PyTorch: the ordinary convolution."""
    _check(input, weight, scale, bias)
    output = F.conv2d(input, _scaled(weight, scale), bias, padding=1)
    return (output.relu_() if relu else output).contiguous(memory_format=memory_format_of(input))


def winograd_conv_backward_reference(
    grad: Tensor, output: Tensor | None, input: Tensor, weight: Tensor, scale: Tensor | None, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The op ``mrcnn::winograd_conv_backward`` in plain PyTorch."""
    _check(input, weight, scale, None)
    _check_grad(grad, output, input, weight)
    if output is not None:
        grad = grad.masked_fill(output <= 0, 0.0)
    settings = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    grads = torch.ops.aten.convolution_backward(
        grad, input, _scaled(weight, scale), [weight.shape[0]], *settings, list(wanted)
    )
    input_grad, weight_grad, bias_grad = (grad.new_empty(0) if found is None else found for found in grads)
    if wanted[0]:
        input_grad = input_grad.contiguous(memory_format=memory_format_of(input))
    if wanted[1]:
        weight_grad = _scaled(weight_grad, scale).contiguous(memory_format=memory_format_of(weight))
    return input_grad, weight_grad, bias_grad


_FORWARD = define_op(
    "winograd_conv(Tensor input, Tensor weight, Tensor? scale, Tensor? bias, bool relu) -> Tensor",
    winograd_conv_reference,
)
# output: where the forward pass had a ReLU, its result; wanted: gradients of input, weight, bias, else empty tensors.
_BACKWARD = define_op(
    "winograd_conv_backward(Tensor grad, Tensor? output, Tensor input, Tensor weight, Tensor? scale, bool[3] wanted)"
    " -> (Tensor, Tensor, Tensor)",
    winograd_conv_backward_reference,
)


@torch.library.register_fake(_FORWARD, lib=LIB)
def _fake_forward(input: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, relu: bool) -> Tensor:
    _check(input, weight, scale, bias)
    shape = (input.shape[0], weight.shape[0], *input.shape[2:])
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=memory_format_of(input))


@torch.library.register_fake(_BACKWARD, lib=LIB)
def _fake_backward(
    grad: Tensor, output: Tensor | None, input: Tensor, weight: Tensor, scale: Tensor | None, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    _check(input, weight, scale, None)
    _check_grad(grad, output, input, weight)
    grads = [
        torch.empty(tensor.shape, dtype=grad.dtype, device=grad.device, memory_format=memory_format_of(tensor))
        if asked_for
        else grad.new_empty(0)
        for tensor, asked_for in ((input, wanted[0]), (weight, wanted[1]))
    ]
    return grads[0], grads[1], grad.new_empty(weight.shape[0] if wanted[2] else 0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, scale, bias, relu = inputs
    ctx.save_for_backward(input, weight, scale, output if relu else None)
    ctx.has_bias = bias is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, weight, scale, output = ctx.saved_tensors
    needed = ctx.needs_input_grad
    wanted = [needed[0], needed[1], ctx.has_bias and needed[3]]
    grads = torch.ops.mrcnn.winograd_conv_backward(grad, output, input, weight, scale, wanted)
    input_grad, weight_grad, bias_grad = (
        found if asked_for else None for found, asked_for in zip(grads, wanted, strict=True)
    )
    return input_grad, weight_grad, None, bias_grad, None


torch.library.register_autograd(_FORWARD, _backward, setup_context=_setup_context, lib=LIB)


@register_flop_formula(torch.ops.mrcnn.winograd_conv)
def _count_flops(input: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """Of the convolution as it is defined, not as it is computed, so that rates compare."""
    return 2 * input[0] * input[2] * input[3] * math.prod(weight)


@register_flop_formula(torch.ops.mrcnn.winograd_conv_backward)
def _count_backward_flops(
    grad: Sequence[int],
    output: Sequence[int] | None,
    input: Sequence[int],
    weight: Sequence[int],
    scale: Sequence[int] | None,
    wanted: Sequence[bool],
    **_: Any,
) -> int:
    """Likewise, of the gradients that are asked for."""
    return 2 * sum(wanted[:2]) * grad[0] * grad[2] * grad[3] * math.prod(weight)
