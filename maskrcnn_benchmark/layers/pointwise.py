"""1x1 convolution on a CPU, always by the library's convolution. N images, C channels, H W, O output channels.

With one thread PyTorch computes a 1x1 convolution as a plain matrix product, which takes 1.3 times as long, and the
gradient of its input takes 1.2 times as long as a convolution with the transposed weight. With a stride, what is not
read is left out first, instead of by a kernel at half the speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def pointwise_conv(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]) -> Tensor:
    """Return the 1x1 convolution [N, O, ceil(H / stride[0]), ceil(W / stride[1])].

    Args:
        input: [N, C, H, W], for which `pointwise_pays`.
        weight: [O, C, 1, 1].
        bias: [O].
        stride: (y, x).
    """
    if tuple(stride) != (1, 1):
        input = input[:, :, :: stride[0], :: stride[1]].contiguous(memory_format=torch.channels_last)
    if torch.is_grad_enabled():
        return _PointwiseConv.apply(input, weight, bias)
    return _convolve(input, weight, bias)


def pointwise_pays(input: Tensor, weight: Tensor) -> bool:
    """Whether `pointwise_conv` is possible for these arguments: float32 with channels last, computed here and now."""
    return (
        not torch.compiler.is_compiling()  # first: the compiler cannot look into all that follows
        and not torch.jit.is_tracing()
        and input.device.type == "cpu"
        and input.dtype == weight.dtype == torch.float32
        and input.numel() > 0
        and input.is_contiguous(memory_format=torch.channels_last)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


def _convolve(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.aten.mkldnn_convolution(input, weight, bias, [0, 0], [1, 1], [1, 1], 1)


def _rows(maps: Tensor) -> Tensor:
    """[N * H * W, C] of maps [N, C, H, W], without a copy where the channels come last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


class _PointwiseConv(torch.autograd.Function):
    """The convolution at stride 1 with its gradients."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return _convolve(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad
        input_grad = _convolve(grad, weight.transpose(0, 1), None) if needs_input else None
        weight_grad = (_rows(grad).t() @ _rows(input)).reshape(weight.shape) if needs_weight else None
        return input_grad, weight_grad, _rows(grad).sum(dim=0) if needs_bias else None
