"""What residual networks are made of: stem, basic block, bottleneck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.batch_norm import conv_norm
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.modeling.make_layers import NormFactory

# (in_channels, out_channels, *, stride, dilation, groups) -> convolution that keeps the size at stride 1
ConvFactory = Callable[..., nn.Module]


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, **options: Any) -> Conv2d:
    dilation = options.get("dilation", 1)
    padding = dilation * (kernel_size // 2)
    conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False, **options)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return conv


def conv3x3(in_channels: int, out_channels: int, *, stride: int, dilation: int, groups: int) -> Conv2d:
    """Build the ordinary 3x3 convolution of a bottleneck."""
    return _conv(in_channels, out_channels, 3, stride, dilation=dilation, groups=groups)


class Stem(nn.Module):
    """7x7 convolution at stride 2, normalisation, ReLU, 3x3 max pooling at stride 2."""

    def __init__(self, out_channels: int, *, norm: NormFactory) -> None:
        super().__init__()
        self.conv1 = _conv(3, out_channels, 7, 2)
        self.bn1 = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, out_channels, H / 4, W / 4] from images [N, 3, H, W]."""
        return F.max_pool2d(conv_norm(x, self.conv1, self.bn1, relu=True), kernel_size=3, stride=2, padding=1)


class _ResidualBlock(nn.Module):
    """Adds its input, or a strided 1x1 projection of it, to what `residual` computes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: NormFactory) -> None:
        super().__init__()
        self.downsample = None
        if in_channels != out_channels or stride != 1:
            self.downsample = nn.Sequential(_conv(in_channels, out_channels, 1, stride), norm(out_channels))

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define residual(x)")

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(residual(x) + shortcut(x)), [N, out_channels, H / stride, W / stride]."""
        shortcut = x if self.downsample is None else conv_norm(x, *self.downsample)
        out = self.residual(x)
        out += shortcut
        return F.relu_(out)


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions, the first one strided."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, norm: NormFactory, dilation: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, stride, dilation=dilation)
        self.bn1 = norm(out_channels)
        self.conv2 = _conv(out_channels, out_channels, 3, dilation=dilation)
        self.bn2 = norm(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """Return the block's sum before the shortcut is added."""
        x = conv_norm(x, self.conv1, self.bn1, relu=True)
        return conv_norm(x, self.conv2, self.bn2)


class Bottleneck(_ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions.

    Args:
        bottleneck_channels: width of the 3x3 convolution.
        stride_in_1x1: put the stride into the first convolution (as MSRA's weights need) instead of the 3x3 one.
        dilation: of the 3x3 convolution.
        num_groups: groups of the 3x3 convolution (ResNeXt).
        make_conv: builds the 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        bottleneck_channels: int,
        out_channels: int,
        *,
        stride: int,
        norm: NormFactory,
        stride_in_1x1: bool = True,
        dilation: int = 1,
        num_groups: int = 1,
        make_conv: ConvFactory = conv3x3,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, stride_1x1)
        self.bn1 = norm(bottleneck_channels)
        self.conv2 = make_conv(
            bottleneck_channels, bottleneck_channels, stride=stride_3x3, dilation=dilation, groups=num_groups
        )
        self.bn2 = norm(bottleneck_channels)
        self.conv3 = _conv(bottleneck_channels, out_channels, 1)
        self.bn3 = norm(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """Return the block's sum before the shortcut is added."""
        x = conv_norm(x, self.conv1, self.bn1, relu=True)
        x = conv_norm(x, self.conv2, self.bn2, relu=True)
        return conv_norm(x, self.conv3, self.bn3)
