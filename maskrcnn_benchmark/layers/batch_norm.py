"""Batch norm whose statistics and affine parameters never change."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


def conv_norm(x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """Return norm(conv(x)); frozen batch norm is folded into the convolution's weight on the fly.

    Args:
        x: [N, C, H, W].
        conv: a convolution without bias; another one than nn.Conv2d has a forward_scaled(x, scale, bias).
        norm: the normalisation that follows it.
    """
    if not isinstance(norm, FrozenBatchNorm2d):
        return norm(conv(x))
    scale, bias = norm.scale_and_bias()
    if not isinstance(conv, nn.Conv2d):
        return conv.forward_scaled(x, scale, bias)
    weight = conv.weight * scale.reshape(-1, 1, 1, 1)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
