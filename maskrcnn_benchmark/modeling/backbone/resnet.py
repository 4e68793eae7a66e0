"""Residual networks. Source: He et al., Deep Residual Learning (2016); ResNeXt: Xie et al. (2017).

Module names are those of the published checkpoints: stem.conv1, layer1.0.conv1, layer1.0.downsample.0, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.backbone.deformable import make_stage_convs
from maskrcnn_benchmark.modeling.backbone.residual_blocks import BasicBlock, Bottleneck, ConvFactory, Stem, conv3x3
from maskrcnn_benchmark.modeling.make_layers import NormFactory, make_norm


class Architecture(NamedTuple):
    """Depth of a residual network."""

    block_counts: tuple[int, int, int, int]  # blocks in res2 .. res5
    basic: bool  # two 3x3 convolutions a block instead of a bottleneck


# By what the names of backbones begin with: R-50 of R-50-C4, R-50-FPN, R-50-FPN-RETINANET.
ARCHITECTURES = {
    "R-18": Architecture((2, 2, 2, 2), basic=True),
    "R-34": Architecture((3, 4, 6, 3), basic=True),
    "R-50": Architecture((3, 4, 6, 3), basic=False),
    "R-101": Architecture((3, 4, 23, 3), basic=False),
    "R-152": Architecture((3, 8, 36, 3), basic=False),
}


def make_architecture(cfg: Any) -> Architecture:
    """Return the architecture that MODEL.BACKBONE.CONV_BODY names.

    Raises:
        ValueError: it names no residual network, or the block named by MODEL.RESNETS.TRANS_FUNC is not of this depth.
    """
    conv_body, block = cfg.MODEL.BACKBONE.CONV_BODY, cfg.MODEL.RESNETS.TRANS_FUNC
    name = "-".join(conv_body.split("-")[:2])
    if name not in ARCHITECTURES:
        raise ValueError(
            f"MODEL.BACKBONE.CONV_BODY {conv_body} is no residual network; their names begin with one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    architecture = ARCHITECTURES[name]
    if architecture.basic != block.startswith("BasicBlock"):
        wanted = "BasicBlock" if architecture.basic else "Bottleneck"
        raise ValueError(
            f"MODEL.RESNETS.TRANS_FUNC is {block}, but {name} is made of {wanted} blocks; "
            f"set it to {wanted}WithFixedBatchNorm, {wanted}WithBatchNorm or {wanted}WithGN"
        )
    return architecture


def make_stage(
    architecture: Architecture,
    index: int,
    in_channels: int,
    *,
    norm: NormFactory,
    res2_out_channels: int = 256,
    num_groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = True,
    dilation: int = 1,
    make_conv: ConvFactory | None = None,
) -> nn.Sequential:
    """Build res2 (index 0) to res5 (index 3): all but res2 halve the resolution, unless they are dilated.

    Args:
        architecture: depth and kind of block.
        in_channels: of the stage's input; its output has res2_out_channels * 2 ** index.
        norm: number of channels -> normalisation layer.
        num_groups, width_per_group, stride_in_1x1: see ResNet.
        dilation: of the 3x3 convolutions.
        make_conv: builds the bottlenecks' 3x3 convolutions; None for ordinary ones.
    """
    out_channels = res2_out_channels * 2**index
    blocks: list[nn.Module] = []
    for _ in range(architecture.block_counts[index]):
        stride = 2 if index > 0 and not blocks and dilation == 1 else 1
        if architecture.basic:
            block: nn.Module = BasicBlock(in_channels, out_channels, stride=stride, norm=norm, dilation=dilation)
        else:
            block = Bottleneck(
                in_channels,
                num_groups * width_per_group * 2**index,
                out_channels,
                stride=stride,
                norm=norm,
                stride_in_1x1=stride_in_1x1,
                dilation=dilation,
                num_groups=num_groups,
                make_conv=make_conv or conv3x3,
            )
        blocks.append(block)
        in_channels = out_channels
    return nn.Sequential(*blocks)


def make_stage_options(cfg: Any) -> dict[str, Any]:
    """Return the arguments of `make_stage` that MODEL.RESNETS gives to all stages."""
    resnets = cfg.MODEL.RESNETS
    return {
        "norm": make_norm(cfg, resnets.TRANS_FUNC),
        "res2_out_channels": resnets.RES2_OUT_CHANNELS,
        "num_groups": resnets.NUM_GROUPS,
        "width_per_group": resnets.WIDTH_PER_GROUP,
        "stride_in_1x1": resnets.STRIDE_IN_1X1,
    }


class ResNet(nn.Module):
    """Residual network that returns the outputs of its stages.

    Args:
        architecture: depth and kind of block.
        stem_norm, block_norm: number of channels -> normalisation layer.
        stem_out_channels: width of the stem.
        res2_out_channels: width of the first stage's output; each further stage doubles it.
        width_per_group, num_groups: width of res2's 3x3 convolutions is their product (bottleneck blocks only).
        stride_in_1x1: see Bottleneck.
        res5_dilation: 2 keeps the resolution of res4 in res5.
        freeze_at: number of leading parts (stem, res2, ...) whose parameters get no gradient.
        num_stages: 3 ends with res4.
        last_only: return the output of the last stage alone.
        stage_convs: for res2 to res5 what builds the bottlenecks' 3x3 convolutions; None for ordinary ones.
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
        num_stages: int = 4,
        last_only: bool = False,
        stage_convs: Sequence[ConvFactory | None] = (None, None, None, None),
    ) -> None:
        super().__init__()
        self.stem = Stem(stem_out_channels, norm=stem_norm)
        channels = [stem_out_channels, *(res2_out_channels * 2**i for i in range(num_stages))]
        for i in range(num_stages):
            stage = make_stage(
                architecture,
                i,
                channels[i],
                norm=block_norm,
                res2_out_channels=res2_out_channels,
                num_groups=num_groups,
                width_per_group=width_per_group,
                stride_in_1x1=stride_in_1x1,
                dilation=res5_dilation if i == 3 else 1,
                make_conv=stage_convs[i],
            )
            self.add_module(f"layer{i + 1}", stage)
        self.num_stages = num_stages
        self.last_only = last_only
        self.out_channels_list = channels[-1:] if last_only else channels[1:]
        self._freeze(freeze_at)

    @classmethod
    def from_config(cls, cfg: Any, *, num_stages: int = 4, last_only: bool = False) -> ResNet:
        """Build the body that MODEL.BACKBONE.CONV_BODY and MODEL.RESNETS describe.

        Raises:
            ValueError: see `make_architecture`.
        """
        options = make_stage_options(cfg)
        return cls(
            make_architecture(cfg),
            stem_norm=make_norm(cfg, cfg.MODEL.RESNETS.STEM_FUNC),
            block_norm=options.pop("norm"),
            stem_out_channels=cfg.MODEL.RESNETS.STEM_OUT_CHANNELS,
            res5_dilation=cfg.MODEL.RESNETS.RES5_DILATION,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT,
            num_stages=num_stages,
            last_only=last_only,
            stage_convs=make_stage_convs(cfg),
            **options,
        )

    def _freeze(self, freeze_at: int) -> None:
        parts = [self.stem, *(self.get_submodule(f"layer{i}") for i in range(1, self.num_stages + 1))]
        for part in parts[: max(freeze_at, 0)]:
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the stage outputs [N, C_l, H / s, W / s], s = 4, 8, 16, 32, from images [N, 3, H, W]."""
        x = self.stem(x)
        outputs = []
        for i in range(1, self.num_stages + 1):
            x = self.get_submodule(f"layer{i}")(x)
            outputs.append(x)
        return outputs[-1:] if self.last_only else outputs


class ResNetHead(nn.Module):
    """The last stage, res5, for use on pooled regions. Source: He et al., Mask R-CNN (2017), figure 4 left.

    Args:
        architecture: depth and kind of block.
        dilation: 2 keeps the resolution of the regions.
        options: further arguments of `make_stage`.
    """

    def __init__(self, architecture: Architecture, *, dilation: int = 1, **options: Any) -> None:
        super().__init__()
        res5_channels = options.get("res2_out_channels", 256) * 2**3
        self.in_channels, self.out_channels = res5_channels // 2, res5_channels
        self.layer4 = make_stage(architecture, 3, self.in_channels, dilation=dilation, **options)

    @classmethod
    def from_config(cls, cfg: Any) -> ResNetHead:
        """Build the res5 that goes with the backbone; MODEL.RESNETS.RES5_DILATION dilates it.

        Raises:
            ValueError: see `make_architecture`.
        """
        return cls(make_architecture(cfg), dilation=cfg.MODEL.RESNETS.RES5_DILATION, **make_stage_options(cfg))

    def forward(self, x: Tensor) -> Tensor:
        """Return [R, out_channels, ceil(h / 2), ceil(w / 2)] from regions [R, in_channels, h, w]."""
        return self.layer4(x)
