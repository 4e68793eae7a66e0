"""The blocks that FBNet's stages are made of. Each is called with x [R, C, H, W] and the filled slots [R], or None.

Names of submodules are those of published checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.batch_norm import conv_norm
from maskrcnn_benchmark.modeling.backbone.fbnet.architectures import Stride
from maskrcnn_benchmark.modeling.backbone.fbnet.norm import SlotBatchNorm2d
from maskrcnn_benchmark.modeling.make_layers import NormFactory


def round_width(width: int, divisor: int) -> int:
    """Return width as a multiple of divisor, the nearest one, halves rounded up.

    As published, what would round to 0 becomes divisor squared.
    """
    if width % divisor == 0:
        return width
    return ((2 * width + divisor) // (2 * divisor) or divisor) * divisor


class Blocks(nn.Sequential):
    """Blocks one after the other; the filled slots are handed to each."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the last block's output."""
        for block in self:
            x = block(x, valid)
        return x


def _conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.Module | None, valid: Tensor | None) -> Tensor:
    if norm is None:
        return conv(x)
    return norm(conv(x), valid) if isinstance(norm, SlotBatchNorm2d) else conv_norm(x, conv, norm)


class ConvNormReLU(nn.Module):
    """Convolution without bias, normalisation, ReLU.

    Args:
        norm: None leaves the normalisation out.
        relu: False leaves the ReLU out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: NormFactory | None,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn = norm(out_channels) if norm is not None else None
        self.relu = relu
        self.out_channels = out_channels

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return [R, out_channels, H / stride, W / stride]."""
        x = _conv_norm(x, self.conv, self.bn, valid)
        return F.relu_(x) if self.relu else x


class SqueezeExcite(nn.Module):
    """Scales each channel by a function of all channels' means. Source: Hu et al., Squeeze-and-Excitation (2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 4, 8)
        self.op = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x scaled."""
        return x * self.op(x)


class InvertedResidual(nn.Module):
    """1x1 convolution to a larger width, depthwise convolution, 1x1 convolution to a smaller width without ReLU.

    Adds its input where shapes allow. Source: Sandler et al., MobileNetV2 (2018), section 3.3.

    Args:
        expansion: inner width relative to in_channels.
        stride: of the depthwise convolution; a negative one enlarges the map before it, by repetition.
        kernel_size: of the depthwise convolution; 1 leaves it out.
        groups: of the 1x1 convolutions; with more than one the inner channels are shuffled among the groups.
        num_depthwise: 1 or 2 depthwise convolutions.
        squeeze_excite: put SqueezeExcite at the end.
        width_divisor: the inner width is a multiple of it.
        skip_norm, skip_relu: leave these out after the last depthwise convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: float,
        stride: Stride,
        norm: NormFactory,
        kernel_size: int = 3,
        groups: int = 1,
        num_depthwise: int = 1,
        squeeze_excite: bool = False,
        width_divisor: int = 1,
        skip_norm: bool = False,
        skip_relu: bool = False,
    ) -> None:
        super().__init__()
        inner = round_width(int(in_channels * expansion), width_divisor)
        self.groups = groups
        self.adds_input = stride == 1 and in_channels == out_channels
        factors = stride if isinstance(stride, tuple) else (stride, stride)
        self.enlarge = tuple(-float(factor) for factor in factors) if min(factors) < 0 else None
        self.pw = ConvNormReLU(in_channels, inner, groups=groups, norm=norm)
        strides = (factors[0] if self.enlarge is None else 1, 1)[:num_depthwise]
        depthwise = []
        for i, each in enumerate(strides if kernel_size > 1 else ()):
            last = i == num_depthwise - 1
            layer_norm = None if last and skip_norm else norm
            layer = ConvNormReLU(
                inner, inner, kernel_size, stride=each, groups=inner, norm=layer_norm, relu=not (last and skip_relu)
            )
            depthwise.append(layer)
        if len(depthwise) == 1:
            self.dw = depthwise[0]
        else:
            self.dw = Blocks(OrderedDict((f"dw{i}", layer) for i, layer in enumerate(depthwise, 1)))
        self.pwl = ConvNormReLU(inner, out_channels, groups=groups, norm=norm, relu=False)
        self.se4 = SqueezeExcite(out_channels) if squeeze_excite else None

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return [R, out_channels, H / stride, W / stride]."""
        y = self.pw(x, valid)
        if self.groups > 1:
            y = F.channel_shuffle(y, self.groups)
        if self.enlarge is not None:
            y = F.interpolate(y, scale_factor=self.enlarge, mode="nearest")
        y = self.pwl(self.dw(y, valid), valid)
        if self.adds_input:
            y = y + x
        return y if self.se4 is None else self.se4(y)


class Skip(nn.Module):
    """Identity, or where shapes differ a strided 1x1 convolution with ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: NormFactory) -> None:
        super().__init__()
        same = in_channels == out_channels and stride == 1
        self.conv = None if same else ConvNormReLU(in_channels, out_channels, stride=stride, norm=norm)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return [R, out_channels, H / stride, W / stride]."""
        return x if self.conv is None else self.conv(x, valid)


class _TwoConvolutions(nn.Sequential):
    """Convolution, norm and ReLU, then what a subclass puts between, then convolution and norm; adds its input."""

    adds_input = False

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return [R, out_channels, H / stride, W / stride]."""
        first, first_norm, *between, second, second_norm = self
        y = _conv_norm(x, first, first_norm, valid)
        for layer in between:
            y = layer(y)
        y = _conv_norm(y, second, second_norm, valid)
        return y + x if self.adds_input else y


class CascadeConv3x3(_TwoConvolutions):
    """Two 3x3 convolutions, the first one strided and at the width of the input."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: NormFactory) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, stride, 1, bias=False),
            norm(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False),
            norm(out_channels),
        )
        self.adds_input = stride == 1 and in_channels == out_channels


class Shift(nn.Module):
    """Moves each channel by a fixed step, groups of channels by different ones. Source: Wu et al., Shift (2018).

    The channels are dealt to the kernel_size squared steps in row-major order; the middle one, which moves nothing,
    takes the rest too.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        steps = kernel_size**2
        middle, share = steps // 2, channels // steps
        counts = torch.full((steps,), share)
        counts[middle] += channels - share * steps
        step = torch.repeat_interleave(torch.arange(steps), counts)
        kernel = F.one_hot(step, steps).float().reshape(channels, 1, kernel_size, kernel_size)
        self.kernel = nn.Parameter(kernel, requires_grad=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return [R, channels, H / stride, W / stride]; beyond the border lie zeros."""
        channels, _, size, _ = self.kernel.shape
        return F.conv2d(x, self.kernel.to(x.dtype), stride=self.stride, padding=size // 2, groups=channels)


class ShiftBlock5x5(_TwoConvolutions):
    """1x1 convolution to a larger width, shift over 5x5, 1x1 convolution to a smaller width."""

    def __init__(
        self, in_channels: int, out_channels: int, *, expansion: float, stride: int, norm: NormFactory
    ) -> None:
        inner = round_width(int(in_channels * expansion), 8)
        super().__init__(
            nn.Conv2d(in_channels, inner, 1, bias=False),
            norm(inner),
            nn.ReLU(inplace=True),
            Shift(inner, 5, stride),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            norm(out_channels),
        )
        self.adds_input = stride == 1 and in_channels == out_channels
