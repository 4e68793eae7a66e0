"""Inputs of the RoI ops: one list of cases for the tests and the benchmarks.

N images, C channels, H W, L levels, R rois. All values come from a seed; nothing here knows the ops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
PYRAMID = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


@dataclass(frozen=True)
class RoiCase:
    """One call of an RoI op."""

    name: str
    rois: str  # which of ROI_KINDS
    num_rois: int = 20
    num_images: int = 2
    channels: int = 5
    image_size: tuple[int, int] = (72, 104)
    scales: tuple[float, ...] = PYRAMID
    output_size: tuple[int, int] = (3, 2)
    sampling_ratio: int = 2
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def __str__(self) -> str:
        layout = "nhwc" if self.channels_last else "nchw"
        return f"{self.name}-{str(self.dtype).removeprefix('torch.')}-{layout}"

    def map_sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each level."""
        return [tuple(max(math.ceil(side * scale), 1) for side in self.image_size) for scale in self.scales]

    def features(self, seed: int = 0) -> list[Tensor]:
        """The feature maps [N, C, H, W], finest first."""
        generator = torch.Generator().manual_seed(seed)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return [
            torch.randn(self.num_images, self.channels, height, width, generator=generator)
            .to(self.dtype)
            .contiguous(memory_format=layout)
            for height, width in self.map_sizes()
        ]

    def make_rois(self, seed: int = 1) -> Tensor:
        """[R, 5] batch index, x1, y1, x2, y2 in float32, or float64 where the features are."""
        generator = torch.Generator().manual_seed(seed)
        boxes = ROI_KINDS[self.rois](self.num_rois, self.image_size, generator)
        images = torch.randint(0, self.num_images, (len(boxes), 1), generator=generator).float()
        rois = torch.cat([images, boxes], dim=1)
        if self.rois == "empty_slots":
            rois[::3, 0] = -1
            rois[1, 3] = math.nan
            rois[2, 4] = math.inf
        return rois.to(torch.float64 if self.dtype == torch.float64 else torch.float32)


def proposal_boxes(num_boxes: int, image_size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """[num_boxes, 4] boxes inside the image, of the sizes and shapes that a region proposal network gives."""
    height, width = image_size
    centre = torch.rand(num_boxes, 2, generator=generator) * torch.tensor([width, height])
    side = torch.exp(torch.rand(num_boxes, generator=generator) * math.log(min(height, width) / 16)) * 16
    stretch = torch.exp(0.4 * torch.randn(num_boxes, generator=generator))
    half = torch.stack([side * stretch, side / stretch], dim=1) / 2
    limit = torch.tensor([width - 1, height - 1])
    return torch.cat([centre - half, centre + half], dim=1).clamp(min=0).minimum(limit.repeat(2))


def _outside(num_boxes: int, image_size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Boxes that leave the image on every side, a third of them altogether."""
    boxes = proposal_boxes(num_boxes, image_size, generator)
    shift = torch.tensor([image_size[1], image_size[0]]).repeat(2) * 0.5
    boxes[::4] -= shift
    boxes[1::4] += shift
    boxes[2::4] += 3 * shift
    boxes[3::4] = (boxes[3::4] - shift) * 2
    return boxes


def _degenerate(num_boxes: int, image_size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Boxes of one point, of one line, turned inside out, as large as the image, and of whole and half pixels."""
    height, width = image_size
    special = torch.tensor(
        [
            [7.0, 9.0, 7.0, 9.0],
            [7.0, 9.0, 50.0, 9.0],
            [7.0, 9.0, 7.0, 50.0],
            [40.0, 30.0, 20.0, 10.0],
            [40.0, 30.0, 39.0, 29.0],
            [0.0, 0.0, width - 1.0, height - 1.0],
            [8.0, 8.0, 24.0, 40.0],
            [2.0, 6.0, 10.0, 14.0],
            [width - 1.0, height - 1.0, width - 1.0, height - 1.0],
            [-4.0, -4.0, -4.0, -4.0],
        ]
    )
    return special[torch.arange(num_boxes) % len(special)]


ROI_KINDS = {
    "proposals": proposal_boxes,
    "empty_slots": proposal_boxes,
    "outside": _outside,
    "degenerate": _degenerate,
}

ROI_CASES = (
    RoiCase("random", "proposals"),
    RoiCase("adaptive", "proposals", sampling_ratio=0),
    RoiCase("one_level", "proposals", scales=(1 / 16,), num_images=1),
    RoiCase("no_rois", "proposals", num_rois=0),
    RoiCase("empty_slots", "empty_slots"),
    RoiCase("degenerate", "degenerate"),
    RoiCase("degenerate_adaptive", "degenerate", sampling_ratio=0),
    RoiCase("outside", "outside"),
    RoiCase("one_pixel", "outside", image_size=(4, 4), scales=(1 / 4, 1 / 8)),
    RoiCase("tile_and_rest", "proposals", channels=67, num_rois=5, output_size=(7, 7)),
)

ROI_CASES_ALL = tuple(
    replace(case, dtype=dtype, channels_last=channels_last)
    for case in ROI_CASES
    for dtype in DTYPES
    for channels_last in (False, True)
)

# The published training shapes at 800 x 1344, R-50-FPN.
BOX_HEAD = RoiCase(
    "box_head", "proposals", num_rois=1000, num_images=1, channels=256, image_size=(800, 1344), output_size=(7, 7)
)
MASK_HEAD = replace(BOX_HEAD, name="mask_head", num_rois=128, output_size=(14, 14))
C4_POOL = replace(BOX_HEAD, name="c4_pool", num_rois=300, channels=1024, scales=(1 / 16,))
