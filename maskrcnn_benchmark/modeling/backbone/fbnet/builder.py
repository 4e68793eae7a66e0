"""From an architecture and the settings of MODEL.FBNET to modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from maskrcnn_benchmark.layers import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.backbone.fbnet.arch_def import find_architecture
from maskrcnn_benchmark.modeling.backbone.fbnet.architectures import Architecture, Block
from maskrcnn_benchmark.modeling.backbone.fbnet.blocks import Blocks, ConvNormReLU, round_width
from maskrcnn_benchmark.modeling.backbone.fbnet.norm import SlotBatchNorm2d
from maskrcnn_benchmark.modeling.backbone.fbnet.ops import BlockSettings, make_block
from maskrcnn_benchmark.modeling.make_layers import NormFactory, make_group_norm


def _make_norm(cfg: Any, key: str) -> NormFactory:
    """Return the normalisation that MODEL.FBNET.<key> names."""
    factories = {"bn": lambda: SlotBatchNorm2d, "af": lambda: FrozenBatchNorm2d, "gn": lambda: make_group_norm(cfg)}
    name = cfg.MODEL.FBNET[key]
    if name not in factories:
        raise ValueError(f"MODEL.FBNET.{key} is {name!r}; known: bn (batch norm), af (frozen batch norm), gn")
    return factories[name]()


@dataclass(frozen=True)
class FBNetBuilder:
    """Makes the parts of a network.

    Args:
        architecture: its stages.
        settings: what all blocks share.
        width_scale: factor on all widths of the architecture.
    """

    architecture: Architecture
    settings: BlockSettings
    width_scale: float = 1.0

    @classmethod
    def from_config(cls, cfg: Any, *, norm_key: str = "BN_TYPE") -> FBNetBuilder:
        """Build the builder that MODEL.FBNET describes, with the normalisation that norm_key names.

        Raises:
            ValueError: an unknown architecture, a wrong ARCH_DEF, or a value out of range.
        """
        fbnet = cfg.MODEL.FBNET
        for key in ("SCALE_FACTOR", "WIDTH_DIVISOR"):
            if fbnet[key] <= 0:
                raise ValueError(f"MODEL.FBNET.{key} must be above 0, but is {fbnet[key]}")
        settings = BlockSettings(
            norm=_make_norm(cfg, norm_key),
            width_divisor=fbnet.WIDTH_DIVISOR,
            skip_norm=fbnet.DW_CONV_SKIP_BN,
            skip_relu=fbnet.DW_CONV_SKIP_RELU,
        )
        return cls(find_architecture(fbnet.ARCH, fbnet.ARCH_DEF), settings, fbnet.SCALE_FACTOR)

    def _width(self, channels: float) -> int:
        return round_width(int(channels), self.settings.width_divisor)

    def first(self, in_channels: int = 3) -> ConvNormReLU:
        """Build the convolution on the image."""
        channels, stride, kernel_size = self.architecture.first
        width = self._width(channels * self.width_scale)
        return ConvNormReLU(in_channels, width, kernel_size, stride=stride, norm=self.settings.norm)

    def blocks(self, in_channels: int, blocks: Mapping[str, Block]) -> tuple[Blocks, int]:
        """Build blocks under their names; return them and the width of their output."""
        modules = OrderedDict()
        for name, block in blocks.items():
            out_channels = self._width(block.channels * self.width_scale)
            modules[name] = make_block(block, in_channels, out_channels, self.settings)
            in_channels = out_channels
        return Blocks(modules), in_channels

    def last(self, in_channels: int, scale: float) -> tuple[nn.Module, int]:
        """Build the 1x1 convolution at the end of a region head; return it and the width of its output.

        Args:
            scale: its width, relative to the architecture's, or if negative to in_channels; 0 leaves it out.
        """
        channels = self.architecture.last_channels * max(self.width_scale, 1.0)
        width = self._width(in_channels * -scale if scale < 0 else int(channels) * scale)
        if width == 0:
            return Blocks(), in_channels
        return ConvNormReLU(in_channels, width, norm=self.settings.norm), width
