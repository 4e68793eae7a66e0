"""Backbones by the name that MODEL.BACKBONE.CONV_BODY gives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from maskrcnn_benchmark.modeling.backbone.resnet import ResNet
from maskrcnn_benchmark.modeling.make_layers import conv_with_kaiming_uniform, make_group_norm
from maskrcnn_benchmark.modeling.utils import build_entry


@registry.BACKBONES.register("R-18-C4")
@registry.BACKBONES.register("R-34-C4")
@registry.BACKBONES.register("R-50-C4")
@registry.BACKBONES.register("R-101-C4")
@registry.BACKBONES.register("R-152-C4")
def build_resnet_c4_backbone(cfg: Any) -> nn.Module:
    """ResNet stages 2 to 4. One map, of stride 16."""
    return _build_single_map(cfg, num_stages=3)


@registry.BACKBONES.register("R-18-C5")
@registry.BACKBONES.register("R-34-C5")
@registry.BACKBONES.register("R-50-C5")
@registry.BACKBONES.register("R-101-C5")
@registry.BACKBONES.register("R-152-C5")
def build_resnet_c5_backbone(cfg: Any) -> nn.Module:
    """ResNet stages 2 to 5. One map, of stride 32, or 16 with MODEL.RESNETS.RES5_DILATION 2."""
    return _build_single_map(cfg, num_stages=4)


def _build_single_map(cfg: Any, *, num_stages: int) -> nn.Module:
    """Build a backbone that gives the last of num_stages stages; ValueError when OUT_CHANNELS is not its width."""
    body = ResNet.from_config(cfg, num_stages=num_stages, last_only=True)
    (out_channels,) = body.out_channels_list
    if out_channels != cfg.MODEL.BACKBONE.OUT_CHANNELS:
        raise ValueError(
            f"MODEL.BACKBONE.OUT_CHANNELS is {cfg.MODEL.BACKBONE.OUT_CHANNELS}, but {cfg.MODEL.BACKBONE.CONV_BODY} has "
            f"{out_channels} channels (from MODEL.RESNETS.RES2_OUT_CHANNELS); set OUT_CHANNELS to {out_channels}"
        )
    model = nn.Sequential(OrderedDict([("body", body)]))
    model.out_channels = out_channels
    return model


@registry.BACKBONES.register("R-18-FPN")
@registry.BACKBONES.register("R-34-FPN")
@registry.BACKBONES.register("R-50-FPN")
@registry.BACKBONES.register("R-101-FPN")
@registry.BACKBONES.register("R-152-FPN")
def build_resnet_fpn_backbone(cfg: Any) -> nn.Module:
    """ResNet stages 2 to 5, a pyramid over them, and a coarsest level by subsampling. Five maps, strides 4 to 64."""
    body = ResNet.from_config(cfg)
    return _build_with_pyramid(cfg, body, body.out_channels_list, LastLevelMaxPool())


@registry.BACKBONES.register("R-18-FPN-RETINANET")
@registry.BACKBONES.register("R-34-FPN-RETINANET")
@registry.BACKBONES.register("R-50-FPN-RETINANET")
@registry.BACKBONES.register("R-101-FPN-RETINANET")
@registry.BACKBONES.register("R-152-FPN-RETINANET")
def build_resnet_fpn_p3p7_backbone(cfg: Any) -> nn.Module:
    """ResNet stages 3 to 5, a pyramid over them, and two coarser levels by convolution. Five maps, strides 8 to 128."""
    body = ResNet.from_config(cfg)
    out_channels, use_c5 = cfg.MODEL.BACKBONE.OUT_CHANNELS, cfg.MODEL.RETINANET.USE_C5
    in_channels = body.out_channels_list[-1] if use_c5 else out_channels
    top_blocks = LastLevelP6P7(in_channels, out_channels, use_c5=use_c5)
    return _build_with_pyramid(cfg, body, [0, *body.out_channels_list[1:]], top_blocks)


def _build_with_pyramid(cfg: Any, body: nn.Module, in_channels_list: Sequence[int], top_blocks: nn.Module) -> nn.Module:
    """Put the pyramid that MODEL.FPN describes onto a body; in_channels_list and top_blocks are FPN's."""
    fpn = FPN(
        in_channels_list=in_channels_list,
        out_channels=cfg.MODEL.BACKBONE.OUT_CHANNELS,
        conv_block=conv_with_kaiming_uniform(cfg.MODEL.FPN.USE_GN, cfg.MODEL.FPN.USE_RELU, norm=make_group_norm(cfg)),
        top_blocks=top_blocks,
    )
    model = nn.Sequential(OrderedDict([("body", body), ("fpn", fpn)]))
    model.out_channels = cfg.MODEL.BACKBONE.OUT_CHANNELS
    return model


def build_backbone(cfg: Any) -> nn.Module:
    """Build the backbone that MODEL.BACKBONE.CONV_BODY names; it has an attribute out_channels.

    Raises:
        KeyError: for an unknown name; the message lists the known ones.
    """
    return build_entry(registry.BACKBONES[cfg.MODEL.BACKBONE.CONV_BODY], cfg)
