"""Heat maps of a region, one a keypoint."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.utils import build_entry

_KERNEL = 4  # of the transposed convolution; a stride of 2 and this much padding double the resolution exactly
_PADDING = _KERNEL // 2 - 1


@registry.ROI_KEYPOINT_PREDICTOR.register("KeypointRCNNPredictor")
class KeypointRCNNPredictor(nn.Module):
    """Transposed 4x4 convolution that doubles the resolution, then bilinear doubling.

    Args:
        in_channels: channels of the features.
        num_keypoints: P.
    """

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.kps_score_lowres = nn.ConvTranspose2d(in_channels, num_keypoints, _KERNEL, stride=2, padding=_PADDING)
        nn.init.kaiming_normal_(self.kps_score_lowres.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.kps_score_lowres.bias)

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> KeypointRCNNPredictor:
        """Build the predictor for MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES keypoints."""
        return cls(in_channels, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [R, P, 4 ph, 4 pw] from features [R, in_channels, ph, pw]."""
        out = self.kps_score_lowres(x)
        return F.interpolate(out, scale_factor=2, mode="bilinear", align_corners=False)


def make_roi_keypoint_predictor(cfg: Any, in_channels: int) -> nn.Module:
    """Build the predictor that MODEL.ROI_KEYPOINT_HEAD.PREDICTOR names."""
    return build_entry(registry.ROI_KEYPOINT_PREDICTOR[cfg.MODEL.ROI_KEYPOINT_HEAD.PREDICTOR], cfg, in_channels)
