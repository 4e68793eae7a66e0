"""Backbones by the name that MODEL.BACKBONE.CONV_BODY gives."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.fpn import FPN, LastLevelMaxPool
from maskrcnn_benchmark.modeling.backbone.resnet import ResNet
from maskrcnn_benchmark.modeling.make_layers import conv_with_kaiming_uniform, make_group_norm


@registry.BACKBONES.register("R-18-FPN")
@registry.BACKBONES.register("R-34-FPN")
@registry.BACKBONES.register("R-50-FPN")
@registry.BACKBONES.register("R-101-FPN")
@registry.BACKBONES.register("R-152-FPN")
def build_resnet_fpn_backbone(cfg: Any) -> nn.Module:
    """ResNet stages 2 to 5, a pyramid over them, and a coarsest level by subsampling. Five maps, strides 4 to 64."""
    body = ResNet.from_config(cfg)
    conv_block = conv_with_kaiming_uniform(cfg.MODEL.FPN.USE_GN, cfg.MODEL.FPN.USE_RELU, norm=make_group_norm(cfg))
    fpn = FPN(
        in_channels_list=body.out_channels_list,
        out_channels=cfg.MODEL.BACKBONE.OUT_CHANNELS,
        conv_block=conv_block,
        top_block=LastLevelMaxPool(),
    )
    model = nn.Sequential(OrderedDict([("body", body), ("fpn", fpn)]))
    model.out_channels = cfg.MODEL.BACKBONE.OUT_CHANNELS
    return model


def build_backbone(cfg: Any) -> nn.Module:
    """Build the backbone that MODEL.BACKBONE.CONV_BODY names; it has an attribute out_channels.

    Raises:
        KeyError: for an unknown name; the message lists the known ones.
    """
    return registry.BACKBONES[cfg.MODEL.BACKBONE.CONV_BODY](cfg)
