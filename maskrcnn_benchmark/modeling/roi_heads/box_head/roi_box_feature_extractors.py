"""Features of a pooled box. An extractor whose features are vectors says so with `gives_maps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers import Conv2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.resnet import ResNetHead
from maskrcnn_benchmark.modeling.make_layers import NormFactory, group_norm, make_fc, make_group_norm
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.modeling.utils import build_entry


def make_box_pooler(cfg: Any) -> Pooler:
    """Build the pooler that MODEL.ROI_BOX_HEAD describes."""
    head = cfg.MODEL.ROI_BOX_HEAD
    return Pooler(head.POOLER_RESOLUTION, head.POOLER_SCALES, head.POOLER_SAMPLING_RATIO)


@registry.ROI_BOX_FEATURE_EXTRACTORS.register("ResNet50Conv5ROIFeatureExtractor")
class ResNet50Conv5ROIFeatureExtractor(nn.Module):
    """The backbone's last stage, res5, on pooled maps of res4. Source: He et al., Mask R-CNN (2017), figure 4 left.

    Args:
        pooler: boxes to [R, head.in_channels, ph, pw].
        head: res5.
    """

    def __init__(self, pooler: Pooler, head: ResNetHead) -> None:
        super().__init__()
        self.pooler = pooler
        self.head = head
        self.out_channels = head.out_channels

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> ResNet50Conv5ROIFeatureExtractor:
        """Build the extractor that MODEL.ROI_BOX_HEAD and MODEL.RESNETS describe.

        Raises:
            ValueError: the backbone does not end with res4.
        """
        return cls(make_box_pooler(cfg), make_res5_head(cfg, in_channels))

    def forward(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return [R, out_channels, ceil(ph / 2), ceil(pw / 2)] from maps [N, C, H_l, W_l] and rois [R, 5]."""
        return self.head(self.pooler(x, rois))


def make_res5_head(cfg: Any, in_channels: int) -> ResNetHead:
    """Build res5 for maps of in_channels channels; ValueError when these are not res4's."""
    head = ResNetHead.from_config(cfg)
    if in_channels != head.in_channels:
        raise ValueError(
            f"ResNet50Conv5ROIFeatureExtractor takes res4's {head.in_channels} channels, but the backbone "
            f"{cfg.MODEL.BACKBONE.CONV_BODY} gives {in_channels}; choose one whose name ends in -C4"
        )
    return head


@registry.ROI_BOX_FEATURE_EXTRACTORS.register("FPN2MLPFeatureExtractor")
class FPN2MLPFeatureExtractor(nn.Module):
    """Two fully connected layers with ReLU.

    Args:
        in_channels: channels of the pyramid.
        pooler: boxes to [R, in_channels, ph, pw].
        representation_size: width of both layers.
        use_gn: group norm after each layer.
    """

    gives_maps = False

    def __init__(
        self,
        in_channels: int,
        pooler: Pooler,
        *,
        representation_size: int = 1024,
        use_gn: bool = False,
        norm: NormFactory = group_norm,
    ) -> None:
        super().__init__()
        height, width = pooler.output_size
        self.pooler = pooler
        self.fc6 = make_fc(in_channels * height * width, representation_size, use_gn, norm=norm)
        self.fc7 = make_fc(representation_size, representation_size, use_gn, norm=norm)
        self.out_channels = representation_size

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> FPN2MLPFeatureExtractor:
        """Build the extractor that MODEL.ROI_BOX_HEAD describes."""
        head = cfg.MODEL.ROI_BOX_HEAD
        return cls(
            in_channels,
            make_box_pooler(cfg),
            representation_size=head.MLP_HEAD_DIM,
            use_gn=head.USE_GN,
            norm=make_group_norm(cfg),
        )

    def forward(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return [R, out_channels] from the pyramid [N, C, H_l, W_l] and rois [R, 5]."""
        pooled = self.pooler(x, rois).flatten(1)
        return F.relu_(self.fc7(F.relu_(self.fc6(pooled))))


@registry.ROI_BOX_FEATURE_EXTRACTORS.register("FPNXconv1fcFeatureExtractor")
class FPNXconv1fcFeatureExtractor(nn.Module):
    """A stack of 3x3 convolutions and one fully connected layer. Source: Wu and He, Group Normalization (2018), 4.2.

    Args:
        in_channels: channels of the pyramid.
        pooler: boxes to [R, in_channels, ph, pw].
        conv_head_dim, num_stacked_convs, dilation: the convolutions.
        representation_size: width of the fully connected layer.
        use_gn: group norm after each convolution.
    """

    gives_maps = False

    def __init__(
        self,
        in_channels: int,
        pooler: Pooler,
        *,
        conv_head_dim: int = 256,
        num_stacked_convs: int = 4,
        dilation: int = 1,
        representation_size: int = 1024,
        use_gn: bool = False,
        norm: NormFactory = group_norm,
    ) -> None:
        super().__init__()
        self.pooler = pooler
        layers: list[nn.Module] = []
        channels = in_channels
        for _ in range(num_stacked_convs):
            conv = Conv2d(channels, conv_head_dim, 3, padding=dilation, dilation=dilation, bias=not use_gn)
            nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            layers += [conv, *([norm(conv_head_dim)] if use_gn else []), nn.ReLU(inplace=True)]
            channels = conv_head_dim
        self.xconvs = nn.Sequential(*layers)
        height, width = pooler.output_size
        self.fc6 = make_fc(channels * height * width, representation_size)
        self.out_channels = representation_size

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> FPNXconv1fcFeatureExtractor:
        """Build the extractor that MODEL.ROI_BOX_HEAD describes."""
        head = cfg.MODEL.ROI_BOX_HEAD
        return cls(
            in_channels,
            make_box_pooler(cfg),
            conv_head_dim=head.CONV_HEAD_DIM,
            num_stacked_convs=head.NUM_STACKED_CONVS,
            dilation=head.DILATION,
            representation_size=head.MLP_HEAD_DIM,
            use_gn=head.USE_GN,
            norm=make_group_norm(cfg),
        )

    def forward(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return [R, out_channels] from the pyramid [N, C, H_l, W_l] and rois [R, 5]."""
        return F.relu_(self.fc6(self.xconvs(self.pooler(x, rois)).flatten(1)))


def make_roi_box_feature_extractor(cfg: Any, in_channels: int) -> nn.Module:
    """Build the extractor that MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR names; it has an attribute out_channels."""
    entry = registry.ROI_BOX_FEATURE_EXTRACTORS[cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR]
    return build_entry(entry, cfg, in_channels)
