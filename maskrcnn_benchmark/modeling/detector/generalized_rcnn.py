"""Faster and Mask R-CNN, and what detects or proposes without heads: RetinaNet, region proposals alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.detector.trunk import Trunk, TrunkOutputs, run_trunk
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import CombinedROIHeads, build_roi_heads
from maskrcnn_benchmark.modeling.rpn.rpn import build_rpn
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list
from maskrcnn_benchmark.structures.targets import Targets


class GeneralizedRCNN(nn.Module):
    """Backbone, region proposals, heads. Source: He et al., Mask R-CNN (2017).

    Args:
        backbone: images [N, 3, H, W] -> pyramid of feature maps [N, C, H_l, W_l].
        rpn: pyramid -> losses and what has to_boxlists(image_sizes): proposals, or detections where there are no heads.
        roi_heads: proposals -> losses or detections; None where the rpn's boxes are the result.
    """

    def __init__(self, backbone: nn.Module, rpn: nn.Module, roi_heads: CombinedROIHeads | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        self._captured: dict[tuple[int, ...], Callable[[Tensor], TrunkOutputs]] = {}

    @classmethod
    def from_config(cls, cfg: Any) -> GeneralizedRCNN:
        """Build the network that cfg.MODEL describes."""
        backbone = build_backbone(cfg)
        channels = backbone.out_channels
        return cls(backbone, build_rpn(cfg, channels), build_roi_heads(cfg, channels))

    def make_trunk(self) -> Trunk:
        """Return a new module of backbone, pyramid and RPN head that shares this network's parameters."""
        return Trunk(self.backbone, self.rpn.head)

    def use_captured(self, trunks: Mapping[tuple[int, ...], Callable[[Tensor], TrunkOutputs]]) -> None:
        """Let these run in training instead of the trunk as it is, from now on.

        Args:
            trunks: by the shape (N, 3, H, W) of the batch that each was captured for; batches of other shapes, and
                evaluation, run as before.
        """
        self._captured = dict(trunks)

    def _run_trunk(self, images: Tensor) -> TrunkOutputs:
        captured = self._captured.get(tuple(images.shape)) if self.training and self._captured else None
        return captured(images) if captured is not None else run_trunk(self.backbone, self.rpn.head, images)

    def forward(
        self,
        images: ImageList | Tensor | Sequence[Tensor],
        targets: Targets | Sequence[BoxList] | None = None,
    ) -> dict[str, Tensor] | list[BoxList]:
        """Return the losses in training, the detections otherwise.

        Args:
            images: normalised images; a list of [3, h, w] tensors is batched.
            targets: ground truth, needed in training: boxes, labels (field labels), polygons (field masks).

        Returns:
            Training: 0-d losses loss_objectness, loss_rpn_box_reg, loss_classifier, loss_box_reg, loss_mask;
            of RetinaNet loss_retina_cls, loss_retina_reg.
            Otherwise: one BoxList an image with fields scores, labels and mask ([n, 1, M, M] probabilities), best
            first; of a region proposal network alone, with field objectness.

        Raises:
            ValueError: in training without targets.
        """
        if self.training and targets is None:
            raise ValueError("In training mode, targets should be passed: call model(images, targets) or model.eval()")
        images = to_image_list(images)
        if targets is not None and not isinstance(targets, Targets):
            targets = Targets.from_boxlists(targets)
        features, logits, deltas = self._run_trunk(images.tensors)
        proposals, losses = self.rpn(images, features, targets, predictions=(logits, deltas))
        if self.training:
            if self.roi_heads is not None:
                losses |= self.roi_heads.losses(features, proposals, targets)
            return losses
        if self.roi_heads is None:
            return proposals.to_boxlists(images.image_sizes)
        return self.roi_heads.detect(features, proposals, images)

    def detect_slots(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Detect on tensors alone, in a fixed number of slots an image, for compilers and export.

        Args:
            images: normalised, [N, 3, H, W], each image in the top left corner.
            sizes: int64 [N, 2] (height, width) of the images.

        Returns:
            boxes [N, D, 4] in pixels, scores [N, D], valid [N, D] bool (False marks an empty slot, of undefined
            content); unless the network only proposes, labels [N, D] int64; what the further heads add with
            `slot_fields`.

        Raises:
            TypeError: a further head has no such method.
        """
        features, logits, deltas = run_trunk(self.backbone, self.rpn.head, images)
        batch = ImageList(images, [], sizes)
        regions, _ = self.rpn(batch, features, None, predictions=(logits, deltas))
        if self.roi_heads is None:
            return regions._asdict()
        return self.roi_heads.detect_slots(features, regions, sizes)
