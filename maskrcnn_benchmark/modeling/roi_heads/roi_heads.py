"""The heads together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.roi_heads.box_head.box_head import ROIBoxHead, build_roi_box_head
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import Detections
from maskrcnn_benchmark.modeling.utils import build_entry
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets


class CombinedROIHeads(nn.Module):
    """Box head, and further heads that look at its regions in training and at its detections otherwise.

    Args:
        box: finds the regions.
        further: by name in the state dict, modules with

            - ``losses(features, regions, targets, box_features)``: a dict of 0-d losses over the regions that the box
              head has sampled (`SampledRegions`, N * S slots); box_features are those that its extractor gave for them,
              [N * S, C, h, w], or None when the head's ``feature_extractor`` is not the box head's;
            - ``add_fields(features, detections)``: copies of the detections, one BoxList an image, with one more field;
            - ``slot_fields(features, detections)``: for `detect_slots` alone, what the head says of each slot of the
              detections (`Detections`, N * D slots), tensors [N, D, ...] by name.
    """

    def __init__(self, box: ROIBoxHead, further: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.box = box
        self.further_names = tuple(further or ())
        for name, head in (further or {}).items():
            self.add_module(name, head)

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> CombinedROIHeads:
        """Build the box head and the further heads that MODEL.<NAME>_ON asks for.

        Raises:
            ValueError: a further head is to share features of the box head that are no maps.
        """
        box = build_roi_box_head(cfg, in_channels)
        names = dict.fromkeys((*registry.ROI_HEADS.modules, *registry.ROI_HEADS))
        wanted = [name for name in names if cfg.MODEL.get(f"{name.upper()}_ON", False)]
        further = {n: build_entry(registry.ROI_HEADS[n], cfg, in_channels, box.feature_extractor) for n in wanted}
        for name, head in further.items():
            if _shares_features(head, box) and not getattr(box.feature_extractor, "gives_maps", True):
                raise ValueError(
                    f"MODEL.ROI_{name.upper()}_HEAD.SHARE_BOX_FEATURE_EXTRACTOR is True, but MODEL.ROI_BOX_HEAD."
                    f"FEATURE_EXTRACTOR {cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR} gives vectors, not maps; "
                    "set the former to False"
                )
        return cls(box, further)

    def further_heads(self) -> dict[str, nn.Module]:
        """Return the heads beside the box head by their names."""
        return {name: self.get_submodule(name) for name in self.further_names}

    def losses(self, features: Sequence[Tensor], proposals: Proposals, targets: Targets) -> dict[str, Tensor]:
        """Return the heads' losses, each 0-d."""
        regions, box_features, losses = self.box.losses(features, proposals, targets)
        for head in self.further_heads().values():
            shared = box_features if _shares_features(head, self.box) else None
            losses |= head.losses(features, regions, targets, shared)
        return losses

    def detect(self, features: Sequence[Tensor], proposals: Proposals, images: ImageList) -> list[BoxList]:
        """Return the detections of each image; of the images only their sizes are used."""
        return self.add_fields(features, self.box.detect(features, proposals, images.sizes), images)

    def detect_slots(self, features: Sequence[Tensor], proposals: Proposals, sizes: Tensor) -> dict[str, Tensor]:
        """Return boxes, scores, labels, valid of each slot, and what the further heads say of it; sizes [N, 2].

        Raises:
            TypeError: a further head has no method slot_fields.
        """
        detections = self.box.detect(features, proposals, sizes)
        fields = detections._asdict()
        for name, head in self.further_heads().items():
            if not hasattr(head, "slot_fields"):
                raise TypeError(
                    f"the head {name} ({type(head).__name__}) has no method slot_fields(features, detections), which "
                    "detection in fixed slots needs; CombinedROIHeads says what it returns"
                )
            fields |= head.slot_fields(features, detections)
        return fields

    def add_fields(self, features: Sequence[Tensor], detections: Detections, images: ImageList) -> list[BoxList]:
        """Return the box head's detections with what the further heads say of them."""
        boxlists = detections.to_boxlists(images.image_sizes)
        for head in self.further_heads().values():
            boxlists = head.add_fields(features, boxlists)
        return boxlists


def _shares_features(head: nn.Module, box: ROIBoxHead) -> bool:
    return getattr(head, "feature_extractor", None) is box.feature_extractor


def build_roi_heads(cfg: Any, in_channels: int) -> CombinedROIHeads | None:
    """Build the heads over feature maps of in_channels channels; None with MODEL.RPN_ONLY or RETINANET_ON."""
    return None if cfg.MODEL.RPN_ONLY or cfg.MODEL.RETINANET_ON else CombinedROIHeads.from_config(cfg, in_channels)
