"""Batch norm whose statistics and affine parameters never change."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.conv import Conv2d


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and affine parameters, all of them buffers.

    As in the published networks no epsilon is added to the variance. `conv_norm` folds the scale into the preceding
    convolution, so that inside a network this layer costs one multiplication of the weights and no pass over the
    activations.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def scale_and_bias(self) -> tuple[Tensor, Tensor]:
        """Return (scale [C], bias [C]) with layer(x) = x * scale + bias."""
        scale = self.weight * self.running_var.rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, C, H, W]
        """Normalise x; the result has x's dtype."""
        scale, bias = self.scale_and_bias()
        return x * scale.to(x.dtype).reshape(1, -1, 1, 1) + bias.to(x.dtype).reshape(1, -1, 1, 1)


def conv_norm(x: Tensor, conv: nn.Module, norm: nn.Module, *, relu: bool = False) -> Tensor:
    """Return norm(conv(x)), with ``relu`` its positive part; frozen batch norm is folded into the convolution.

    Args:
        x: [N, C, H, W].
        conv: a convolution without bias; another one than nn.Conv2d has a forward_scaled(x, scale, bias).
        norm: the normalisation that follows it.
    """
    if isinstance(norm, FrozenBatchNorm2d):
        scale, bias = norm.scale_and_bias()
        if isinstance(conv, Conv2d):
            return conv.scaled(x, scale=scale, bias=bias, relu=relu)
        if isinstance(conv, nn.Conv2d):
            weight = conv.weight * scale.reshape(-1, 1, 1, 1)
            x = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        else:
            x = conv.forward_scaled(x, scale, bias)
    else:
        x = norm(conv(x))
    return F.relu_(x) if relu else x
