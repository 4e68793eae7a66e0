"""RetinaNet behind the backbone. Source: Lin et al., Focal Loss for Dense Object Detection (2017), section 4."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers import Conv2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import Detections
from maskrcnn_benchmark.modeling.rpn.anchor_generator import AnchorGenerator, make_anchor_generator_retinanet
from maskrcnn_benchmark.modeling.rpn.retinanet.inference import select_dense_detections
from maskrcnn_benchmark.modeling.rpn.retinanet.loss import retinanet_losses
from maskrcnn_benchmark.modeling.rpn.utils import flatten_map
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets


def _make_tower(channels: int, num_convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        layers += [Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class RetinaNetHead(nn.Module):
    """Two towers of 3x3 convolutions, then class logits and box codes, shared by all levels.

    Args:
        in_channels: of the feature maps.
        num_anchors: A, of a location.
        num_classes: K, without background.
        num_convs: length of a tower.
        prior_prob: probability that each class starts with; keeps the many negatives from drowning the first steps.
    """

    def __init__(
        self, in_channels: int, num_anchors: int, num_classes: int, *, num_convs: int = 4, prior_prob: float = 0.01
    ) -> None:
        super().__init__()
        self.cls_tower = _make_tower(in_channels, num_convs)
        self.bbox_tower = _make_tower(in_channels, num_convs)
        self.cls_logits = Conv2d(in_channels, num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits [N, A K, H_l, W_l] and codes [N, 4 A, H_l, W_l] of each level."""
        logits = [self.cls_logits(self.cls_tower(feature)) for feature in features]
        return logits, [self.bbox_pred(self.bbox_tower(feature)) for feature in features]


@registry.RPN_MODULES.register("RetinaNet")
class RetinaNetModule(nn.Module):
    """Anchors and head; in training the two losses, otherwise the detections.

    Args:
        anchor_generator, head: the parts.
        num_classes: K, without background.
        fg_iou_threshold, bg_iou_threshold, alpha, gamma, box_beta, box_norm: training, see `retinanet_losses`.
        score_thresh, pre_nms_top_n, nms_thresh, detections_per_img: inference, see `select_dense_detections`.
    """

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        head: nn.Module,
        num_classes: int,
        *,
        fg_iou_threshold: float = 0.5,
        bg_iou_threshold: float = 0.4,
        alpha: float = 0.25,
        gamma: float = 2.0,
        box_beta: float = 0.11,
        box_norm: float = 4.0,
        score_thresh: float = 0.05,
        pre_nms_top_n: int = 1000,
        nms_thresh: float = 0.4,
        detections_per_img: int = 100,
    ) -> None:
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = head
        self.num_classes = num_classes
        self.loss_settings = {
            "fg_iou_threshold": fg_iou_threshold,
            "bg_iou_threshold": bg_iou_threshold,
            "alpha": alpha,
            "gamma": gamma,
            "box_beta": box_beta,
            "box_norm": box_norm,
        }
        self.selection = {
            "score_thresh": score_thresh,
            "pre_nms_top_n": pre_nms_top_n,
            "nms_thresh": nms_thresh,
            "detections_per_img": detections_per_img,
        }
        self.box_coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> RetinaNetModule:
        """Build the network that MODEL.RETINANET describes; TEST.DETECTIONS_PER_IMG limits its detections."""
        retinanet = cfg.MODEL.RETINANET
        anchor_generator = make_anchor_generator_retinanet(cfg)
        num_classes = retinanet.NUM_CLASSES - 1
        head = RetinaNetHead(
            in_channels,
            anchor_generator.num_anchors_per_location()[0],
            num_classes,
            num_convs=retinanet.NUM_CONVS,
            prior_prob=retinanet.PRIOR_PROB,
        )
        return cls(
            anchor_generator,
            head,
            num_classes,
            fg_iou_threshold=retinanet.FG_IOU_THRESHOLD,
            bg_iou_threshold=retinanet.BG_IOU_THRESHOLD,
            alpha=retinanet.LOSS_ALPHA,
            gamma=retinanet.LOSS_GAMMA,
            box_beta=retinanet.BBOX_REG_BETA,
            box_norm=retinanet.BBOX_REG_WEIGHT,
            score_thresh=retinanet.INFERENCE_TH,
            pre_nms_top_n=retinanet.PRE_NMS_TOP_N,
            nms_thresh=retinanet.NMS_TH,
            detections_per_img=cfg.TEST.DETECTIONS_PER_IMG,
        )

    def forward(
        self,
        images: ImageList,
        features: Sequence[Tensor],
        targets: Targets | None = None,
        *,
        predictions: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
    ) -> tuple[Detections | None, dict[str, Tensor]]:
        """Return the detections, in training None, and in training {loss_retina_cls, loss_retina_reg}.

        Args:
            images: only their sizes are used.
            features: pyramid levels [N, C, H_l, W_l].
            targets: needed in training.
            predictions: what the head gives for the features; None: it runs here.
        """
        logits, deltas = self.head(features) if predictions is None else predictions
        logits = [flatten_map(level, self.num_classes) for level in logits]
        deltas = [flatten_map(level, 4) for level in deltas]
        anchors = self.anchor_generator.concatenated(features)
        if self.training:
            losses = retinanet_losses(logits, deltas, anchors, targets, box_coder=self.box_coder, **self.loss_settings)
            return None, dict(zip(("loss_retina_cls", "loss_retina_reg"), losses, strict=True))
        with torch.no_grad():
            detections = select_dense_detections(
                logits,
                deltas,
                self.anchor_generator.split(anchors, features),
                images.sizes,
                box_coder=self.box_coder,
                **self.selection,
            )
        return detections, {}
