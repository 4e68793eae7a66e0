"""Deformable convolution, plain and modulated, as functions and as modules under their published names.

Sources: Dai et al., Deformable Convolutional Networks (2017); Zhu et al., Deformable ConvNets v2 (2019). N images, C
channels, H W, O output channels, K = kh * kw taps, D deformable groups, OH OW output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from maskrcnn_benchmark import ops

Size = int | tuple[int, int]  # one number for both axes, or (y, x)


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def deform_conv(
    input: Tensor,  # [N, C, H, W]
    offset: Tensor,  # [N, D * K * 2, OH, OW]
    weight: Tensor,  # [O, C / groups, kh, kw]
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> Tensor:
    """Convolve input with taps moved by offset to [N, O, OH, OW]; see `maskrcnn_benchmark.ops.deform_conv`."""
    return modulated_deform_conv(
        input, offset, None, weight, None, stride, padding, dilation, groups, deformable_groups
    )


def modulated_deform_conv(
    input: Tensor,  # [N, C, H, W]
    offset: Tensor,  # [N, D * K * 2, OH, OW]
    mask: Tensor | None,  # [N, D * K, OH, OW]
    weight: Tensor,  # [O, C / groups, kh, kw]
    bias: Tensor | None = None,  # [O]
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> Tensor:
    """Convolve input with taps moved by offset and weighted by mask to [N, O, OH, OW]."""
    return ops.deform_conv(
        input,
        weight,
        offset,
        mask,
        bias,
        stride=_pair(stride),
        padding=_pair(padding),
        dilation=_pair(dilation),
        groups=groups,
        deformable_groups=deformable_groups,
    )


class ModulatedDeformConv(nn.Module):
    """Convolution whose taps are moved and weighted by tensors that come with the input.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as of a convolution.
        deformable_groups: parts of the channels with offsets and masks of their own.

    Raises:
        ValueError: channels that do not divide into the groups.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for channels, name, parts in (
            (in_channels, "groups", groups),
            (out_channels, "groups", groups),
            (in_channels, "deformable_groups", deformable_groups),
        ):
            if parts < 1 or channels % parts:
                raise ValueError(f"deformable convolution: {channels} channels do not divide into {name} = {parts}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.padding, self.dilation = _pair(padding), _pair(dilation)
        self.groups, self.deformable_groups = groups, deformable_groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight as published: uniform within 1 / sqrt(in_channels * kh * kw), the bias zero."""
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def convolve(
        self, input: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Apply the layer with another weight and bias than its own."""
        arguments = self.stride, self.padding, self.dilation, self.groups, self.deformable_groups
        return modulated_deform_conv(input, offset, mask, weight, bias, *arguments)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Return [N, O, OH, OW] from input [N, C, H, W], offset [N, D * K * 2, OH, OW], mask [N, D * K, OH, OW]."""
        return self.convolve(input, offset, mask, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in print(module)."""
        names = ("kernel_size", "stride", "padding", "dilation", "groups", "deformable_groups")
        values = ", ".join(f"{name}={getattr(self, name)}" for name in names)
        return f"{self.in_channels}, {self.out_channels}, {values}, bias={self.bias is not None}"


class DeformConv(ModulatedDeformConv):
    """Convolution whose taps are moved by a tensor that comes with the input. It has no bias.

    Args:
        see `ModulatedDeformConv`.

    Raises:
        ValueError: as there, and with bias=True.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = False,
    ) -> None:
        if bias:
            raise ValueError("DeformConv has no bias; use ModulatedDeformConv, or add a normalisation behind it")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups, bias=False
        )

    def forward(self, input: Tensor, offset: Tensor) -> Tensor:
        """Return [N, O, OH, OW] from input [N, C, H, W] and offset [N, D * K * 2, OH, OW]."""
        return self.convolve(input, offset, None, self.weight, None)


def _make_offset_conv(conv: ModulatedDeformConv, channels_per_tap: int) -> nn.Conv2d:
    """The convolution that predicts channels_per_tap numbers for each tap of another one, at each of its outputs."""
    channels = conv.deformable_groups * math.prod(conv.kernel_size) * channels_per_tap
    return nn.Conv2d(
        conv.in_channels, channels, conv.kernel_size, conv.stride, padding=conv.padding, dilation=conv.dilation
    )


def _split_offset_and_mask(predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Two thirds of the channels are offsets; the others, through a sigmoid, masks."""
    mask_channels = predicted.shape[1] // 3
    offset, mask = predicted.split([2 * mask_channels, mask_channels], dim=1)
    return offset, mask.sigmoid()


class ModulatedDeformConvPack(ModulatedDeformConv):
    """Modulated deformable convolution that predicts its offsets and masks from its input, at first all 0 and 1/2.

    Args:
        see `ModulatedDeformConv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups, bias
        )
        self.conv_offset_mask = _make_offset_conv(self, 3)
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return [N, O, OH, OW] from input [N, C, H, W]."""
        offset, mask = _split_offset_and_mask(self.conv_offset_mask(input))
        return self.convolve(input, offset, mask, self.weight, self.bias)


class DFConv2d(nn.Module):
    """Deformable convolution that predicts its offsets, and masks, from its input; padded to keep the size at stride 1.

    Args:
        in_channels, out_channels, kernel_size, stride, groups, dilation, bias: as of a convolution.
        with_modulated_dcn: predict masks too; otherwise there is no bias.
        deformable_groups: parts of the channels with offsets of their own.

    Raises:
        ValueError: channels that do not divide into the groups, or bias=True without masks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        with_modulated_dcn: bool = True,
        kernel_size: Size = 3,
        stride: Size = 1,
        groups: int = 1,
        dilation: Size = 1,
        deformable_groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        sides = zip(_pair(dilation), _pair(kernel_size), strict=True)
        padding_y, padding_x = (step * (side - 1) // 2 for step, side in sides)
        conv_class = ModulatedDeformConv if with_modulated_dcn else DeformConv
        padding = (padding_y, padding_x)
        conv = conv_class(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups, bias
        )
        self.offset = _make_offset_conv(conv, 3 if with_modulated_dcn else 2)
        nn.init.kaiming_uniform_(self.offset.weight, a=1)
        nn.init.zeros_(self.offset.bias)
        self.conv = conv
        self.with_modulated_dcn = with_modulated_dcn

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, O, OH, OW] from x [N, C, H, W]."""
        return self._convolve(x, self.conv.weight, self.conv.bias)

    def forward_scaled(self, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """Return forward(x) * scale + bias, both [O], for a layer without bias: scaling is done on the weight."""
        return self._convolve(x, self.conv.weight * scale.reshape(-1, 1, 1, 1), bias)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        predicted = self.offset(x)
        offset, mask = _split_offset_and_mask(predicted) if self.with_modulated_dcn else (predicted, None)
        return self.conv.convolve(x, offset, mask, weight, bias)
