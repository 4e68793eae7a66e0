"""RPN head and region heads of inverted residuals."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.fbnet.architectures import Block, total_stride
from maskrcnn_benchmark.modeling.backbone.fbnet.blocks import Blocks
from maskrcnn_benchmark.modeling.backbone.fbnet.builder import FBNetBuilder
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.structures.bounding_box import BoxList

logger = logging.getLogger("maskrcnn_benchmark")


class FBNetRPNHead(nn.Module):
    """Blocks on each level."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return [N, C, H_l, W_l] of each level."""
        return [self.head(feature) for feature in features]


class RPNHeadConvRegressor(nn.Module):
    """Objectness and box codes by 1x1 convolutions, shared by all levels."""

    def __init__(self, in_channels: int, num_anchors: int, *, init_std: float = 0.01) -> None:
        super().__init__()
        self.cls_logits = nn.Conv2d(in_channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(in_channels, num_anchors * 4, 1)
        for layer in (self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=init_std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits [N, A, H_l, W_l] and codes [N, 4 A, H_l, W_l] of each level."""
        return [self.cls_logits(x) for x in features], [self.bbox_pred(x) for x in features]


@registry.RPN_HEADS.register("FBNet.rpn_head")
def build_fbnet_rpn_head(cfg: Any, in_channels: int, num_anchors: int) -> nn.Module:
    """Build the architecture's RPN blocks, or the last MODEL.FBNET.RPN_HEAD_BLOCKS of them, and the two predictors.

    Raises:
        ValueError: the blocks change the size of the map, so that the anchors would not fit, or are too few.
    """
    fbnet = cfg.MODEL.FBNET
    builder = FBNetBuilder.from_config(cfg, norm_key="RPN_BN_TYPE" if fbnet.RPN_BN_TYPE else "BN_TYPE")
    architecture = builder.architecture
    blocks = architecture.blocks_of(architecture.parts.get("rpn", range(len(architecture.stages))))
    if not 0 <= fbnet.RPN_HEAD_BLOCKS <= len(blocks):
        raise ValueError(
            f"MODEL.FBNET.RPN_HEAD_BLOCKS is {fbnet.RPN_HEAD_BLOCKS}, but the RPN head of "
            f"MODEL.FBNET.ARCH {fbnet.ARCH!r} has {len(blocks)} blocks; set it to 0 for all of them"
        )
    blocks = dict(list(blocks.items())[-fbnet.RPN_HEAD_BLOCKS :])
    if total_stride(blocks.values()) != (1, 1):
        raise ValueError(
            f"MODEL.FBNET.ARCH {fbnet.ARCH!r} has no stages for the RPN head that keep the size of the map; "
            "set MODEL.RPN.RPN_HEAD to SingleConvRPNHead"
        )
    head, channels = builder.blocks(in_channels, blocks)
    return nn.Sequential(FBNetRPNHead(head), RPNHeadConvRegressor(channels, num_anchors))


class FBNetROIHead(nn.Module):
    """Pooled regions through blocks and a last convolution.

    Args:
        pooler: boxes to [R, C, ph, pw].
        blocks, last: modules that are called with features and the filled slots.
        out_channels: of the last one.
    """

    def __init__(self, pooler: Pooler, blocks: nn.Module, last: nn.Module, *, out_channels: int) -> None:
        super().__init__()
        self.pooler = pooler
        self.head = Blocks(OrderedDict(blocks=blocks, last=last))
        self.out_channels = out_channels

    def forward(self, x: Sequence[Tensor], rois: Tensor | Sequence[BoxList]) -> Tensor:
        """Return [R, out_channels, ph / s, pw / s], s the stride of the blocks.

        Args:
            x: feature maps [N, C, H_l, W_l].
            rois: [R, 5] (batch index, x1, y1, x2, y2), an empty slot with the index -1; or one BoxList an image.
        """
        valid = rois[:, 0] >= 0 if isinstance(rois, Tensor) else None
        return self.head(self.pooler(x, rois), valid)


def _head_blocks(builder: FBNetBuilder, name: str, chosen: Sequence[int]) -> dict[str, Block]:
    """Return the blocks of a region head; of each of its stages only the chosen ones, if any are."""
    architecture = builder.architecture
    stages = architecture.parts.get(name) or architecture.parts.get("head")
    if stages is None:
        logger.warning("FBNet: the architecture has no stages for the part %r; as published it gets them all", name)
        stages = range(len(architecture.stages))
    names = {f"xif{i}_{j}" for i in stages for j in chosen}
    return {key: block for key, block in architecture.blocks_of(stages).items() if not names or key in names}


def _build_roi_head(cfg: Any, in_channels: int, name: str, section: str, prefix: str) -> FBNetROIHead:
    """Build the region head that the keys MODEL.FBNET.<prefix>_* and the pooler of MODEL.<section> describe."""
    chosen, stride, scale = (cfg.MODEL.FBNET[f"{prefix}_{key}"] for key in ("BLOCKS", "STRIDE", "LAST_SCALE"))
    builder = FBNetBuilder.from_config(cfg)
    blocks = _head_blocks(builder, name, chosen)
    if not blocks:
        raise ValueError(f"MODEL.FBNET.{prefix}_BLOCKS is {tuple(chosen)}, which chooses no block; set it to ()")
    if stride not in (0, 1, 2):
        raise ValueError(f"MODEL.FBNET.{prefix}_STRIDE must be 1, 2, or 0 for the architecture's, but is {stride}")
    if stride:
        first = next(iter(blocks))
        blocks[first] = blocks[first]._replace(stride=stride)
    body, channels = builder.blocks(in_channels, blocks)
    last, channels = builder.last(channels, scale)
    head = cfg.MODEL[section]
    pooler = Pooler(head.POOLER_RESOLUTION, head.POOLER_SCALES, head.POOLER_SAMPLING_RATIO)
    return FBNetROIHead(pooler, body, last, out_channels=channels)


@registry.ROI_BOX_FEATURE_EXTRACTORS.register("FBNet.roi_head")
def build_fbnet_box_head(cfg: Any, in_channels: int) -> FBNetROIHead:
    """Build the box head's extractor from the part bbox and the keys DET_HEAD_*."""
    return _build_roi_head(cfg, in_channels, "bbox", "ROI_BOX_HEAD", "DET_HEAD")


@registry.ROI_MASK_FEATURE_EXTRACTORS.register("FBNet.roi_head_mask")
def build_fbnet_mask_head(cfg: Any, in_channels: int) -> FBNetROIHead:
    """Build the mask head's extractor from the part mask and the keys MASK_HEAD_*."""
    return _build_roi_head(cfg, in_channels, "mask", "ROI_MASK_HEAD", "MASK_HEAD")


@registry.ROI_KEYPOINT_FEATURE_EXTRACTORS.register("FBNet.roi_head_keypoints")
def build_fbnet_keypoint_head(cfg: Any, in_channels: int) -> FBNetROIHead:
    """Build the keypoint head's extractor from the part kpts and the keys KPTS_HEAD_*."""
    return _build_roi_head(cfg, in_channels, "kpts", "ROI_KEYPOINT_HEAD", "KPTS_HEAD")
