"""A backbone and a box head of one's own, chosen by the config like the published ones.

    python example/register_own_parts.py OUTPUT_FOLDER [KEY VALUE ...]

A part is a module that is registered under a name. Either it has a classmethod from_config, as the backbone below, or
it is called with (cfg, in_channels), as the box head below and everything written for the published registries. The two
learn the shapes that the demo draws; further KEY VALUE pairs change the run.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.apps.train import main, make_parser
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.poolers import Pooler

BASE_CONFIG = Path(__file__).resolve().parent.parent / "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"


@registry.BACKBONES.register("PlainBackbone")
class PlainBackbone(nn.Module):
    """Four strided convolutions. A backbone gives a sequence of maps and says how many channels each has."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        widths = [3, out_channels // 4, out_channels // 2, out_channels, out_channels]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.out_channels = out_channels

    @classmethod
    def from_config(cls, cfg: Any) -> PlainBackbone:
        """Only here is the config read."""
        return cls(cfg.MODEL.BACKBONE.OUT_CHANNELS)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one map, [N, out_channels, H / 16, W / 16], of images [N, 3, H, W]."""
        return [self.layers(images)]


@registry.ROI_BOX_FEATURE_EXTRACTORS.register("MeanAndPeakExtractor")
class MeanAndPeakExtractor(nn.Module):
    """Mean and maximum of a pooled region. An extractor says how wide the vector is that it gives for a region."""

    def __init__(self, cfg: Any, in_channels: int) -> None:
        super().__init__()
        head = cfg.MODEL.ROI_BOX_HEAD
        self.pooler = Pooler(head.POOLER_RESOLUTION, head.POOLER_SCALES, head.POOLER_SAMPLING_RATIO)
        self.fc = nn.Linear(2 * in_channels, head.MLP_HEAD_DIM)
        self.out_channels = head.MLP_HEAD_DIM

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return [R, out_channels] from the maps and rois [R, 5] (batch index, x1, y1, x2, y2)."""
        pooled = self.pooler(features, rois)
        return F.relu(self.fc(torch.cat((pooled.mean((2, 3)), pooled.amax((2, 3))), dim=1)))


OWN_PARTS = [
    *("MODEL.BACKBONE.CONV_BODY", "PlainBackbone"),
    *("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "MeanAndPeakExtractor"),
    # one map of stride 16 instead of a pyramid
    *("MODEL.RPN.USE_FPN", False, "MODEL.RPN.ANCHOR_STRIDE", (16,), "MODEL.RPN.ANCHOR_SIZES", (24, 48, 80, 112)),
    *("MODEL.ROI_BOX_HEAD.POOLER_SCALES", (1 / 16,), "MODEL.ROI_MASK_HEAD.POOLER_SCALES", (1 / 16,)),
]

if __name__ == "__main__":
    output_folder, *more = sys.argv[1:]
    Path(output_folder).mkdir(parents=True, exist_ok=True)
    summary = str(Path(output_folder, "dllogger.out"))
    options = [*map(str, OWN_PARTS), "OUTPUT_DIR", output_folder, *more]
    main(make_parser().parse_args(["--config-file", str(BASE_CONFIG), "--json-summary", summary, *options]), cfg)
