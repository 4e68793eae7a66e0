"""Class logits and box codes of a region."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.utils import build_entry


@registry.ROI_BOX_PREDICTOR.register("FPNPredictor")
class FPNPredictor(nn.Module):
    """Two linear layers on the region's features.

    Args:
        in_channels: width of the features.
        num_classes: K, classes with background.
        num_box_codes: B, sets of box codes: one a class, or 2 for background and all objects alike.
    """

    def __init__(self, in_channels: int, num_classes: int, *, num_box_codes: int | None = None) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, (num_box_codes or num_classes) * 4)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> FPNPredictor:
        """Build the predictor for MODEL.ROI_BOX_HEAD.NUM_CLASSES classes, and MODEL.CLS_AGNOSTIC_BBOX_REG."""
        num_box_codes = 2 if cfg.MODEL.CLS_AGNOSTIC_BBOX_REG else None
        return cls(in_channels, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES, num_box_codes=num_box_codes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits [R, K] and box codes [R, 4 B] from features [R, in_channels]."""
        return self.cls_score(x), self.bbox_pred(x)


@registry.ROI_BOX_PREDICTOR.register("FastRCNNPredictor")
class FastRCNNPredictor(FPNPredictor):
    """The same on the mean of each of the region's maps."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits [R, K] and box codes [R, 4 B] from maps [R, in_channels, h, w]."""
        return super().forward(F.adaptive_avg_pool2d(x, 1).flatten(1))


def make_roi_box_predictor(cfg: Any, in_channels: int) -> nn.Module:
    """Build the predictor that MODEL.ROI_BOX_HEAD.PREDICTOR names."""
    return build_entry(registry.ROI_BOX_PREDICTOR[cfg.MODEL.ROI_BOX_HEAD.PREDICTOR], cfg, in_channels)
