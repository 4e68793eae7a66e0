"""Features of a pooled box for its mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.layers.conv import conv_relu
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.make_layers import NormFactory, group_norm, make_conv3x3, make_group_norm
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.modeling.roi_heads.box_head.roi_box_feature_extractors import (
    ResNet50Conv5ROIFeatureExtractor,
    make_res5_head,
)
from maskrcnn_benchmark.modeling.utils import build_entry


def make_mask_pooler(cfg: Any) -> Pooler:
    """Build the pooler that MODEL.ROI_MASK_HEAD describes."""
    head = cfg.MODEL.ROI_MASK_HEAD
    return Pooler(head.POOLER_RESOLUTION, head.POOLER_SCALES, head.POOLER_SAMPLING_RATIO)


@registry.ROI_MASK_FEATURE_EXTRACTORS.register("ResNet50Conv5ROIFeatureExtractor")
def build_res5_extractor(cfg: Any, in_channels: int) -> ResNet50Conv5ROIFeatureExtractor:
    """Build a res5 of the mask head's own; ValueError when the backbone does not end with res4."""
    return ResNet50Conv5ROIFeatureExtractor(make_mask_pooler(cfg), make_res5_head(cfg, in_channels))


@registry.ROI_MASK_FEATURE_EXTRACTORS.register("MaskRCNNFPNFeatureExtractor")
class MaskRCNNFPNFeatureExtractor(nn.Module):
    """A stack of 3x3 convolutions with ReLU. Source: He et al., Mask R-CNN (2017), figure 4.

    Args:
        in_channels: channels of the pyramid.
        pooler: boxes to [R, in_channels, ph, pw].
        layers: widths of the convolutions.
        dilation: of each convolution.
        use_gn: group norm after each convolution.
    """

    def __init__(
        self,
        in_channels: int,
        pooler: Pooler,
        *,
        layers: Sequence[int] = (256, 256, 256, 256),
        dilation: int = 1,
        use_gn: bool = False,
        norm: NormFactory = group_norm,
    ) -> None:
        super().__init__()
        self.pooler = pooler
        channels = in_channels
        for i, width in enumerate(layers, 1):
            self.add_module(f"mask_fcn{i}", make_conv3x3(channels, width, dilation=dilation, use_gn=use_gn, norm=norm))
            channels = width
        self.num_layers = len(layers)
        self.out_channels = channels

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> MaskRCNNFPNFeatureExtractor:
        """Build the extractor that MODEL.ROI_MASK_HEAD describes."""
        head = cfg.MODEL.ROI_MASK_HEAD
        return cls(
            in_channels,
            make_mask_pooler(cfg),
            layers=head.CONV_LAYERS,
            dilation=head.DILATION,
            use_gn=head.USE_GN,
            norm=make_group_norm(cfg),
        )

    def forward(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return [P, out_channels, ph, pw] from the pyramid [N, C, H_l, W_l] and rois [P, 5]."""
        out = self.pooler(x, rois)
        for i in range(1, self.num_layers + 1):
            out = conv_relu(self.get_submodule(f"mask_fcn{i}"), out)
        return out


def make_roi_mask_feature_extractor(cfg: Any, in_channels: int) -> nn.Module:
    """Build the extractor that MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR names; it has an attribute out_channels."""
    entry = registry.ROI_MASK_FEATURE_EXTRACTORS[cfg.MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR]
    return build_entry(entry, cfg, in_channels)
