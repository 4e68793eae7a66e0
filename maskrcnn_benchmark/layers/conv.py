"""Convolution with what follows it: a factor and a shift a channel, a ReLU. N images, C channels, H W, O outputs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.pointwise import pointwise_conv, pointwise_pays
from maskrcnn_benchmark.ops.winograd import winograd_conv, winograd_pays


class Conv2d(nn.Conv2d):
    """nn.Conv2d that takes the fastest way on a CPU; elsewhere, and as a part of an exported program, it is one.

    3x3 convolutions need fewer multiplications where `winograd` is set and it pays (`winograd_conv`). Arguments,
    parameters and their names are those of nn.Conv2d.
    """

    winograd = False

    def forward(self, input: Tensor, *, relu: bool = False) -> Tensor:
        """Return the convolution [N, O, H', W'] of input [N, C, H, W], with ``relu`` its positive part."""
        return self.scaled(input, bias=self.bias, relu=relu)

    def scaled(
        self, input: Tensor, *, scale: Tensor | None = None, bias: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        """Return the convolution without the layer's own bias, times scale [O], plus bias [O]."""
        if self._may_be_winograd() and winograd_pays(input, self.weight):
            return winograd_conv(input, self.weight, bias, scale=scale, relu=relu)
        weight = self.weight if scale is None else self.weight * scale.reshape(-1, 1, 1, 1)
        if self._is_pointwise() and pointwise_pays(input, weight):
            output = pointwise_conv(input, weight, bias, self.stride)
        else:
            output = self._conv_forward(input, weight, bias)
        return F.relu_(output) if relu else output

    def _may_be_winograd(self) -> bool:
        ones = (1, 1)
        return (
            self.winograd
            and self.kernel_size == (3, 3)
            and self.stride == self.padding == self.dilation == ones
            and self.groups == 1
            and self.padding_mode == "zeros"
        )

    def _is_pointwise(self) -> bool:
        return self.kernel_size == (1, 1) and self.padding == (0, 0) and self.groups == 1


def allow_winograd(model: nn.Module, allowed: bool) -> None:
    """Set for all convolutions of the model whether they may be computed with fewer multiplications."""
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.winograd = allowed


def conv_relu(layer: nn.Module, x: Tensor) -> Tensor:
    """Return relu(layer(x)), in one pass where the layer is a convolution alone."""
    return layer(x, relu=True) if isinstance(layer, Conv2d) else F.relu_(layer(x))
