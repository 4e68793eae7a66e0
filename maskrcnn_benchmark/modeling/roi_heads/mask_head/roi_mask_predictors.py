"""Mask logits of a region, one mask a class."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers import Conv2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.utils import build_entry


def _init_kaiming(module: nn.Module) -> None:
    for layer in module.children():
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(layer.bias)


@registry.ROI_MASK_PREDICTOR.register("MaskRCNNC4Predictor")
class MaskRCNNC4Predictor(nn.Module):
    """Transposed 2x2 convolution that doubles the resolution, ReLU, 1x1 convolution to one map a class.

    Args:
        in_channels: channels of the features.
        hidden_channels: width after the transposed convolution.
        num_classes: classes with background.
    """

    def __init__(self, in_channels: int, hidden_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(in_channels, hidden_channels, 2, stride=2)
        self.mask_fcn_logits = Conv2d(hidden_channels, num_classes, 1)
        _init_kaiming(self)

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> MaskRCNNC4Predictor:
        """Build the predictor; its width is the last of MODEL.ROI_MASK_HEAD.CONV_LAYERS."""
        return cls(in_channels, cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS[-1], cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [P, K, 2 ph, 2 pw] from features [P, in_channels, ph, pw]."""
        return self.mask_fcn_logits(F.relu_(self.conv5_mask(x)))


@registry.ROI_MASK_PREDICTOR.register("MaskRCNNConv1x1Predictor")
class MaskRCNNConv1x1Predictor(nn.Module):
    """1x1 convolution to one map a class, at the resolution of the features."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.mask_fcn_logits = Conv2d(in_channels, num_classes, 1)
        _init_kaiming(self)

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> MaskRCNNConv1x1Predictor:
        """Build the predictor for MODEL.ROI_BOX_HEAD.NUM_CLASSES classes."""
        return cls(in_channels, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [P, K, ph, pw] from features [P, in_channels, ph, pw]."""
        return self.mask_fcn_logits(x)


def make_roi_mask_predictor(cfg: Any, in_channels: int) -> nn.Module:
    """Build the predictor that MODEL.ROI_MASK_HEAD.PREDICTOR names."""
    return build_entry(registry.ROI_MASK_PREDICTOR[cfg.MODEL.ROI_MASK_HEAD.PREDICTOR], cfg, in_channels)
