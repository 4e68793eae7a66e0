"""Region proposal network. Source: Ren et al., Faster R-CNN (2015), section 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers import Conv2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.rpn.anchor_generator import AnchorGenerator, make_anchor_generator
from maskrcnn_benchmark.modeling.rpn.inference import select_proposals
from maskrcnn_benchmark.modeling.rpn.loss import rpn_losses
from maskrcnn_benchmark.modeling.rpn.utils import flatten_map
from maskrcnn_benchmark.modeling.utils import build_entry, cat
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets


@registry.RPN_HEADS.register("SingleConvRPNHead")
class RPNHead(nn.Module):
    """3x3 convolution with ReLU, then objectness and box codes by 1x1 convolutions, shared by all levels."""

    def __init__(self, in_channels: int, num_anchors: int, *, init_std: float = 0.01) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, in_channels, 3, padding=1)
        self.cls_logits = Conv2d(in_channels, num_anchors, 1)
        self.bbox_pred = Conv2d(in_channels, num_anchors * 4, 1)
        for layer in (self.conv, self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=init_std)
            nn.init.zeros_(layer.bias)

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int, num_anchors: int) -> RPNHead:
        """Build the published head; no key changes it."""
        return cls(in_channels, num_anchors)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits [N, A, H_l, W_l] and codes [N, 4 A, H_l, W_l] of each level."""
        logits, deltas = [], []
        for feature in features:
            hidden = self.conv(feature, relu=True)
            logits.append(self.cls_logits(hidden))
            deltas.append(self.bbox_pred(hidden))
        return logits, deltas


@dataclass(frozen=True)
class ProposalLimits:
    """How many proposals are kept, see `select_proposals`."""

    pre_nms_top_n: int
    post_nms_top_n: int
    total_top_n: int
    total_over_batch: bool


@registry.RPN_MODULES.register("RPN")
class RPNModule(nn.Module):
    """Anchors, head, proposals, and in training the two RPN losses.

    Args:
        anchor_generator, head: the parts.
        limits_train, limits_test: numbers of proposals kept.
        nms_thresh: IoU above which a proposal is suppressed.
        min_size: smallest side of a proposal, pixels.
        fg_iou_threshold, bg_iou_threshold: an anchor is positive from the first on, negative below the second.
        batch_size_per_image, positive_fraction: see `sample_slots`.
    """

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        head: nn.Module,
        *,
        limits_train: ProposalLimits,
        limits_test: ProposalLimits,
        nms_thresh: float = 0.7,
        min_size: int = 0,
        fg_iou_threshold: float = 0.7,
        bg_iou_threshold: float = 0.3,
        batch_size_per_image: int = 256,
        positive_fraction: float = 0.5,
    ) -> None:
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = head
        self.limits_train = limits_train
        self.limits_test = limits_test
        self.nms_thresh = nms_thresh
        self.min_size = min_size
        self.loss_settings = {
            "fg_iou_threshold": fg_iou_threshold,
            "bg_iou_threshold": bg_iou_threshold,
            "batch_size_per_image": batch_size_per_image,
            "positive_fraction": positive_fraction,
        }
        self.box_coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> RPNModule:
        """Build the network that MODEL.RPN describes."""
        rpn = cfg.MODEL.RPN
        anchor_generator = make_anchor_generator(cfg)
        num_anchors = anchor_generator.num_anchors_per_location()[0]
        head_class = registry.RPN_HEADS[rpn.RPN_HEAD]
        make_head = getattr(head_class, "from_config", head_class)
        return cls(
            anchor_generator,
            make_head(cfg, in_channels, num_anchors),
            limits_train=ProposalLimits(
                rpn.PRE_NMS_TOP_N_TRAIN,
                rpn.POST_NMS_TOP_N_TRAIN,
                rpn.FPN_POST_NMS_TOP_N_TRAIN,
                rpn.FPN_POST_NMS_PER_BATCH,
            ),
            limits_test=ProposalLimits(
                rpn.PRE_NMS_TOP_N_TEST, rpn.POST_NMS_TOP_N_TEST, rpn.FPN_POST_NMS_TOP_N_TEST, False
            ),
            nms_thresh=rpn.NMS_THRESH,
            min_size=rpn.MIN_SIZE,
            fg_iou_threshold=rpn.FG_IOU_THRESHOLD,
            bg_iou_threshold=rpn.BG_IOU_THRESHOLD,
            batch_size_per_image=rpn.BATCH_SIZE_PER_IMAGE,
            positive_fraction=rpn.POSITIVE_FRACTION,
        )

    def forward(
        self,
        images: ImageList,
        features: Sequence[Tensor],
        targets: Targets | None = None,
        *,
        predictions: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
    ) -> tuple[Proposals, dict[str, Tensor]]:
        """Return the proposals and, in training, {loss_objectness, loss_rpn_box_reg}.

        Args:
            images: only their sizes are used.
            features: pyramid levels [N, C, H_l, W_l].
            targets: needed in training.
            predictions: what the head gives for the features; None: it runs here.
        """
        logits, deltas = self.head(features) if predictions is None else predictions
        logits = [flatten_map(level, 1).squeeze(-1) for level in logits]
        deltas = [flatten_map(level, 4) for level in deltas]
        all_anchors = self.anchor_generator.concatenated(features)
        losses = {}
        if self.training:
            losses["loss_objectness"], losses["loss_rpn_box_reg"] = rpn_losses(
                cat(logits, dim=1),
                cat(deltas, dim=1),
                all_anchors,
                self.anchor_generator.visible(all_anchors, images.sizes),
                targets,
                box_coder=self.box_coder,
                **self.loss_settings,
            )
        limits = self.limits_train if self.training else self.limits_test
        with torch.no_grad():
            proposals = select_proposals(
                logits,
                deltas,
                self.anchor_generator.split(all_anchors, features),
                images.sizes,
                box_coder=self.box_coder,
                nms_thresh=self.nms_thresh,
                min_size=self.min_size,
                **vars(limits),
            )
        return proposals, losses


def build_rpn(cfg: Any, in_channels: int) -> nn.Module:
    """Build what follows the backbone, over feature maps of in_channels channels.

    Region proposals, or with MODEL.RETINANET_ON a network whose regions are the detections already.
    """
    name = "RetinaNet" if cfg.MODEL.RETINANET_ON else "RPN"
    return build_entry(registry.RPN_MODULES[name], cfg, in_channels)
