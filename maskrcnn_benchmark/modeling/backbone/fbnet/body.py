"""The trunk: one feature map."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.fbnet.architectures import total_stride
from maskrcnn_benchmark.modeling.backbone.fbnet.builder import FBNetBuilder


class FBNetTrunk(nn.Module):
    """A first convolution and stages.

    Args:
        first, stages: modules, one after the other.
    """

    def __init__(self, first: nn.Module, stages: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.stages = stages

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return [features [N, C, H / s, W / s]], s = 16 in all published architectures, from images [N, 3, H, W]."""
        return [self.stages(self.first(x))]


@registry.BACKBONES.register("FBNet")
def build_fbnet_backbone(cfg: Any) -> nn.Module:
    """Build the trunk that MODEL.FBNET describes.

    Raises:
        ValueError: the anchors have another stride than the trunk.
    """
    builder = FBNetBuilder.from_config(cfg)
    architecture = builder.architecture
    blocks = architecture.trunk_blocks()
    stride = architecture.rpn_stride or architecture.first.stride * total_stride(blocks.values())[0]
    if cfg.MODEL.RPN.ANCHOR_STRIDE[0] != stride:
        raise ValueError(
            f"MODEL.RPN.ANCHOR_STRIDE is {tuple(cfg.MODEL.RPN.ANCHOR_STRIDE)}, but the trunk of "
            f"MODEL.FBNET.ARCH {cfg.MODEL.FBNET.ARCH!r} has stride {stride:g}; set it to ({stride:g},)"
        )
    first = builder.first()
    stages, out_channels = builder.blocks(first.out_channels, blocks)
    model = nn.Sequential(OrderedDict(body=FBNetTrunk(first, stages)))
    model.out_channels = out_channels
    return model
