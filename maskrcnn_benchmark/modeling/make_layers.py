"""Builders of small layer groups with the published initialisation, and the normalisations to choose from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from maskrcnn_benchmark.layers import Conv2d, FrozenBatchNorm2d

NormFactory = Callable[[int], nn.Module]  # number of channels -> normalisation layer


def group_norm(
    out_channels: int,
    affine: bool = True,
    divisor: int = 1,
    *,
    num_groups: int = 32,
    dim_per_gp: int = -1,
    eps: float = 1e-5,
) -> nn.GroupNorm:
    """Group norm over out_channels // divisor channels.

    Args:
        num_groups: number of groups, divided by divisor; used when dim_per_gp is not positive.
        dim_per_gp: channels of a group; exactly one of the two must be positive.

    Raises:
        ValueError: when both or neither are given, or the channels do not divide.
    """
    if (num_groups > 0) == (dim_per_gp > 0):
        raise ValueError(
            f"MODEL.GROUP_NORM: exactly one of NUM_GROUPS ({num_groups}) and DIM_PER_GP ({dim_per_gp}) is positive;"
            " set the other to -1"
        )
    channels = out_channels // divisor
    groups = channels // (dim_per_gp // divisor) if dim_per_gp > 0 else num_groups // divisor
    if groups < 1 or channels % groups:
        raise ValueError(f"group norm: {channels} channels do not divide into {groups} groups; change MODEL.GROUP_NORM")
    return nn.GroupNorm(groups, out_channels, eps, affine)


def make_group_norm(cfg: Any) -> NormFactory:
    """Return the group norm that MODEL.GROUP_NORM describes."""
    settings = cfg.MODEL.GROUP_NORM

    def build(channels: int) -> nn.Module:
        return group_norm(
            channels, num_groups=settings.NUM_GROUPS, dim_per_gp=settings.DIM_PER_GP, eps=settings.EPSILON
        )

    return build


def make_norm(cfg: Any, name: str) -> NormFactory:
    """Return the normalisation that the end of a published block name stands for.

    Args:
        name: e.g. BottleneckWithFixedBatchNorm, StemWithGN, BasicBlockWithBatchNorm.

    Raises:
        KeyError: for a name with another ending.
    """
    factories = {
        "WithFixedBatchNorm": lambda: FrozenBatchNorm2d,
        "WithBatchNorm": lambda: nn.BatchNorm2d,
        "WithGN": lambda: make_group_norm(cfg),
    }
    for ending, factory in factories.items():
        if name.endswith(ending):
            return factory()
    raise KeyError(f"{name}: the name of a block must end in one of {', '.join(factories)}")


def make_fc(dim_in: int, hidden_dim: int, use_gn: bool = False, *, norm: NormFactory = group_norm) -> nn.Module:
    """Linear layer, or linear layer without bias plus group norm. Uniform Kaiming initialisation as in Caffe2."""
    fc = nn.Linear(dim_in, hidden_dim, bias=not use_gn)
    nn.init.kaiming_uniform_(fc.weight, a=1)
    if use_gn:
        return nn.Sequential(fc, norm(hidden_dim))
    nn.init.zeros_(fc.bias)
    return fc


def _conv_group(conv: nn.Conv2d, use_gn: bool, use_relu: bool, norm: NormFactory) -> nn.Module:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    layers = [conv, *([norm(conv.out_channels)] if use_gn else []), *([nn.ReLU(inplace=True)] if use_relu else [])]
    return nn.Sequential(*layers) if len(layers) > 1 else conv


def make_conv3x3(
    in_channels: int,
    out_channels: int,
    dilation: int = 1,
    stride: int = 1,
    use_gn: bool = False,
    use_relu: bool = False,
    kaiming_init: bool = True,
    *,
    norm: NormFactory = group_norm,
) -> nn.Module:
    """3x3 convolution that keeps the size at stride 1, with optional group norm and ReLU."""
    conv = Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=not use_gn)
    if kaiming_init:
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.normal_(conv.weight, std=0.01)
    return _conv_group(conv, use_gn, use_relu, norm)


def conv_with_kaiming_uniform(
    use_gn: bool = False, use_relu: bool = False, *, norm: NormFactory = group_norm
) -> Callable[..., nn.Module]:
    """Return make_conv(in_channels, out_channels, kernel_size, stride=1, dilation=1), as the FPN takes it."""

    def make_conv(
        in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1
    ) -> nn.Module:
        padding = dilation * (kernel_size - 1) // 2
        conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=not use_gn)
        nn.init.kaiming_uniform_(conv.weight, a=1)
        return _conv_group(conv, use_gn, use_relu, norm)

    return make_conv
