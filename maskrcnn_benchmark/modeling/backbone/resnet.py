"""Residual networks. Source: He et al., Deep Residual Learning (2016); ResNeXt: Xie et al. (2017).

Module names are those of the published checkpoints: stem.conv1, layer1.0.conv1, layer1.0.downsample.0, ...
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.batch_norm import conv_norm
from maskrcnn_benchmark.modeling.make_layers import NormFactory, make_norm


class Architecture(NamedTuple):
    """Depth of a residual network."""

    block_counts: tuple[int, int, int, int]  # blocks in res2 .. res5
    basic: bool  # two 3x3 convolutions a block instead of a bottleneck


ARCHITECTURES = {
    "R-18": Architecture((2, 2, 2, 2), basic=True),
    "R-34": Architecture((3, 4, 6, 3), basic=True),
    "R-50": Architecture((3, 4, 6, 3), basic=False),
    "R-101": Architecture((3, 4, 23, 3), basic=False),
    "R-152": Architecture((3, 8, 36, 3), basic=False),
}


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, **options: Any) -> nn.Conv2d:
    dilation = options.get("dilation", 1)
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False, **options)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return conv


class Stem(nn.Module):
    """7x7 convolution at stride 2, normalisation, ReLU, 3x3 max pooling at stride 2."""

    def __init__(self, out_channels: int, *, norm: NormFactory) -> None:
        super().__init__()
        self.conv1 = _conv(3, out_channels, 7, 2)
        self.bn1 = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, out_channels, H / 4, W / 4] from images [N, 3, H, W]."""
        return F.max_pool2d(F.relu_(conv_norm(x, self.conv1, self.bn1)), kernel_size=3, stride=2, padding=1)


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

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: NormFactory) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, stride)
        self.bn1 = norm(out_channels)
        self.conv2 = _conv(out_channels, out_channels, 3)
        self.bn2 = norm(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """Return the block's sum before the shortcut is added."""
        x = F.relu_(conv_norm(x, self.conv1, self.bn1))
        return conv_norm(x, self.conv2, self.bn2)


class Bottleneck(_ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions.

    Args:
        bottleneck_channels: width of the 3x3 convolution.
        stride_in_1x1: put the stride into the first convolution (as MSRA's weights need) instead of the 3x3 one.
        dilation: of the 3x3 convolution.
        num_groups: groups of the 3x3 convolution (ResNeXt).
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
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, stride_1x1)
        self.bn1 = norm(bottleneck_channels)
        self.conv2 = _conv(
            bottleneck_channels, bottleneck_channels, 3, stride_3x3, dilation=dilation, groups=num_groups
        )
        self.bn2 = norm(bottleneck_channels)
        self.conv3 = _conv(bottleneck_channels, out_channels, 1)
        self.bn3 = norm(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """Return the block's sum before the shortcut is added."""
        x = F.relu_(conv_norm(x, self.conv1, self.bn1))
        x = F.relu_(conv_norm(x, self.conv2, self.bn2))
        return conv_norm(x, self.conv3, self.bn3)


class ResNet(nn.Module):
    """Residual network that returns the outputs of its four stages.

    Args:
        architecture: depth and kind of block.
        stem_norm, block_norm: number of channels -> normalisation layer.
        stem_out_channels: width of the stem.
        res2_out_channels: width of the first stage's output; each further stage doubles it.
        width_per_group, num_groups: width of res2's 3x3 convolutions is their product (bottleneck blocks only).
        stride_in_1x1: see Bottleneck.
        res5_dilation: 2 keeps the resolution of res4 in res5.
        freeze_at: number of leading parts (stem, res2, ...) whose parameters get no gradient.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        stem_norm: NormFactory,
        block_norm: NormFactory,
        stem_out_channels: int = 64,
        res2_out_channels: int = 256,
        num_groups: int = 1,
        width_per_group: int = 64,
        stride_in_1x1: bool = True,
        res5_dilation: int = 1,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        self.stem = Stem(stem_out_channels, norm=stem_norm)
        self.out_channels_list = [res2_out_channels * 2**i for i in range(4)]
        channels = stem_out_channels
        for i, (count, out_channels) in enumerate(zip(architecture.block_counts, self.out_channels_list, strict=True)):
            dilation = res5_dilation if i == 3 else 1
            blocks = []
            for index in range(count):
                stride = 2 if index == 0 and i > 0 and dilation == 1 else 1
                if architecture.basic:
                    block = BasicBlock(channels, out_channels, stride=stride, norm=block_norm)
                else:
                    block = Bottleneck(
                        channels,
                        num_groups * width_per_group * 2**i,
                        out_channels,
                        stride=stride,
                        norm=block_norm,
                        stride_in_1x1=stride_in_1x1,
                        dilation=dilation,
                        num_groups=num_groups,
                    )
                blocks.append(block)
                channels = out_channels
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self._freeze(freeze_at)

    @classmethod
    def from_config(cls, cfg: Any) -> ResNet:
        """Build the body that MODEL.BACKBONE.CONV_BODY and MODEL.RESNETS describe.

        Raises:
            ValueError: when the block named by TRANS_FUNC is not the one of this depth.
        """
        name = "-".join(cfg.MODEL.BACKBONE.CONV_BODY.split("-")[:2])  # R-50 of R-50-FPN-RETINANET
        resnets = cfg.MODEL.RESNETS
        architecture = ARCHITECTURES[name]
        if architecture.basic != resnets.TRANS_FUNC.startswith("BasicBlock"):
            wanted = "BasicBlock" if architecture.basic else "Bottleneck"
            raise ValueError(
                f"MODEL.RESNETS.TRANS_FUNC is {resnets.TRANS_FUNC}, but {name} is made of {wanted} blocks; "
                f"set it to {wanted}WithFixedBatchNorm, {wanted}WithBatchNorm or {wanted}WithGN"
            )
        return cls(
            architecture,
            stem_norm=make_norm(cfg, resnets.STEM_FUNC),
            block_norm=make_norm(cfg, resnets.TRANS_FUNC),
            stem_out_channels=resnets.STEM_OUT_CHANNELS,
            res2_out_channels=resnets.RES2_OUT_CHANNELS,
            num_groups=resnets.NUM_GROUPS,
            width_per_group=resnets.WIDTH_PER_GROUP,
            stride_in_1x1=resnets.STRIDE_IN_1X1,
            res5_dilation=resnets.RES5_DILATION,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT,
        )

    def _freeze(self, freeze_at: int) -> None:
        parts = [self.stem, *(self.get_submodule(f"layer{i}") for i in range(1, 5))]
        for part in parts[: max(freeze_at, 0)]:
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the stage outputs [N, C_l, H / s, W / s], s = 4, 8, 16, 32, from images [N, 3, H, W]."""
        x = self.stem(x)
        outputs = []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            outputs.append(x)
        return outputs
