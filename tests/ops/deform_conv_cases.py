"""Inputs of deformable convolution: one list of cases for the tests and the benchmarks, all values from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tests.ops.inputs import DTYPES

Pair = tuple[int, int]


@dataclass(frozen=True)
class DeformConvCase:
    """One call of deformable convolution."""

    name: str
    masked: bool = False
    num_images: int = 2
    channels: int = 4
    output_channels: int = 6
    size: Pair = (7, 9)
    kernel: Pair = (3, 3)
    stride: Pair = (1, 1)
    padding: Pair = (1, 1)
    dilation: Pair = (1, 1)
    groups: int = 1
    deformable_groups: int = 1
    reach: float = 2.0  # standard deviation of the offsets; 0 puts them on whole pixels
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def __str__(self) -> str:
        layout = "nhwc" if self.channels_last else "nchw"
        return f"{self.name}-{str(self.dtype).removeprefix('torch.')}-{layout}"

    @property
    def precise(self) -> torch.dtype:
        """The dtype of offsets and masks."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def output_size(self) -> Pair:
        """(OH, OW)."""
        sides = zip(self.size, self.padding, self.dilation, self.kernel, self.stride, strict=True)
        height, width = (
            (side + 2 * pad - step * (taps - 1) - 1) // stride + 1 for side, pad, step, taps, stride in sides
        )
        return height, width

    def arguments(self, seed: int = 0) -> tuple[Any, ...]:
        """The arguments of the op."""
        generator = torch.Generator().manual_seed(seed)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        points = self.deformable_groups * self.kernel[0] * self.kernel[1]
        input = draw(self.num_images, self.channels, *self.size).to(self.dtype).contiguous(memory_format=layout)
        weight = draw(self.output_channels, self.channels // self.groups, *self.kernel) * 0.3
        offset = draw(self.num_images, 2 * points, *self.output_size()) * self.reach
        mask = draw(self.num_images, points, *self.output_size()).sigmoid() if self.masked else None
        return (
            input,
            weight.to(self.dtype),
            offset.to(self.precise),
            None if mask is None else mask.to(self.precise),
            list(self.stride),
            list(self.padding),
            list(self.dilation),
            self.groups,
            self.deformable_groups,
        )

    def backward_arguments(self) -> tuple[Any, ...]:
        """The arguments of the backward op."""
        arguments = self.arguments()
        generator = torch.Generator().manual_seed(1)
        grad = torch.randn(self.num_images, self.output_channels, *self.output_size(), generator=generator)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return grad.to(self.dtype).contiguous(memory_format=layout), *arguments


CASES = (
    DeformConvCase("plain"),
    DeformConvCase("masked", masked=True),
    DeformConvCase("whole_pixels", masked=True, reach=0.0),
    DeformConvCase("far_outside", masked=True, reach=30.0),
    DeformConvCase("strided_groups", masked=True, groups=2, stride=(2, 1), padding=(0, 2)),
    DeformConvCase("deformable_groups", channels=8, deformable_groups=4, dilation=(2, 1), padding=(2, 1)),
    DeformConvCase("parts_cross", True, channels=12, groups=2, deformable_groups=3, kernel=(2, 3), padding=(1, 0)),
    DeformConvCase("one_pixel", masked=True, size=(1, 1), reach=0.5),
    DeformConvCase("no_images", masked=True, num_images=0),
    DeformConvCase("one_tap", num_images=1, kernel=(1, 1), padding=(0, 0)),
    DeformConvCase("tile_and_rest", True, channels=67, num_images=1, size=(4, 5), output_channels=3),
)

CASES_ALL = tuple(
    replace(case, dtype=dtype, channels_last=last) for case in CASES for dtype in DTYPES for last in (False, True)
)

# The published ones at 800 x 1344, R-50-FPN.
RES3 = DeformConvCase("res3", num_images=1, channels=128, output_channels=128, size=(100, 168), masked=True)
RES5 = replace(RES3, name="res5", channels=512, output_channels=512, size=(25, 42))
