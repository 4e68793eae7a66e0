"""Features of a pooled box for its keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.layers.conv import conv_relu
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.make_layers import make_conv3x3
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.modeling.utils import build_entry


@registry.ROI_KEYPOINT_FEATURE_EXTRACTORS.register("KeypointRCNNFeatureExtractor")
class KeypointRCNNFeatureExtractor(nn.Module):
    """A stack of 3x3 convolutions with ReLU. Source: He et al., Mask R-CNN (2017), section 5.

    Args:
        in_channels: channels of the pyramid.
        pooler: boxes to [R, in_channels, ph, pw].
        layers: widths of the convolutions.
    """

    def __init__(self, in_channels: int, pooler: Pooler, *, layers: Sequence[int] = (512,) * 8) -> None:
        super().__init__()
        self.pooler = pooler
        channels = in_channels
        for i, width in enumerate(layers, 1):
            self.add_module(f"conv_fcn{i}", make_conv3x3(channels, width))
            channels = width
        self.num_layers = len(layers)
        self.out_channels = channels

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> KeypointRCNNFeatureExtractor:
        """Build the extractor that MODEL.ROI_KEYPOINT_HEAD describes."""
        head = cfg.MODEL.ROI_KEYPOINT_HEAD
        pooler = Pooler(head.POOLER_RESOLUTION, head.POOLER_SCALES, head.POOLER_SAMPLING_RATIO)
        return cls(in_channels, pooler, layers=head.CONV_LAYERS)

    def forward(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return [R, out_channels, ph, pw] from the pyramid [N, C, H_l, W_l] and rois [R, 5]."""
        out = self.pooler(x, rois)
        for i in range(1, self.num_layers + 1):
            out = conv_relu(self.get_submodule(f"conv_fcn{i}"), out)
        return out


def make_roi_keypoint_feature_extractor(cfg: Any, in_channels: int) -> nn.Module:
    """Build the extractor that MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR names; it has an attribute out_channels."""
    entry = registry.ROI_KEYPOINT_FEATURE_EXTRACTORS[cfg.MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR]
    return build_entry(entry, cfg, in_channels)
