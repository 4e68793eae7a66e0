"""Class logits and box codes of a region."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.utils import build_entry


@registry.ROI_BOX_PREDICTOR.register("FPNPredictor")
class FPNPredictor(nn.Module):
    """Two linear layers on the region's features.

    Args:
        in_channels: width of the features.
        num_classes: classes with background.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, num_classes * 4)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> FPNPredictor:
        """Build the predictor for MODEL.ROI_BOX_HEAD.NUM_CLASSES classes."""
        return cls(in_channels, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits [R, K] and box codes [R, 4 K] from features [R, in_channels]."""
        return self.cls_score(x), self.bbox_pred(x)


def make_roi_box_predictor(cfg: Any, in_channels: int) -> nn.Module:
    """Build the predictor that MODEL.ROI_BOX_HEAD.PREDICTOR names."""
    return build_entry(registry.ROI_BOX_PREDICTOR[cfg.MODEL.ROI_BOX_HEAD.PREDICTOR], cfg, in_channels)
