"""Inputs of the 3x3 convolution with fewer multiplications: one list of cases for the tests and the benchmarks.

N images, C channels, H W, O output channels. All values come from a seed; nothing here knows the op.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class ConvCase:
    """One call of the convolution."""

    name: str
    num_images: int = 1
    channels: int = 32
    output_channels: int = 48
    size: tuple[int, int] = (13, 20)
    scaled: bool = True
    biased: bool = True
    relu: bool = False
    channels_last: bool = True

    def __str__(self) -> str:
        return f"{self.name}-{'nhwc' if self.channels_last else 'nchw'}"

    def arguments(self, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, bool]:
        """The arguments of the op: input, weight, scale, bias, relu."""
        generator = torch.Generator().manual_seed(seed)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        input = draw(self.num_images, self.channels, *self.size).contiguous(memory_format=layout)
        weight = draw(self.output_channels, self.channels, 3, 3) / math.sqrt(9 * self.channels)
        scale = draw(self.output_channels).abs() + 0.5 if self.scaled else None
        bias = draw(self.output_channels) if self.biased else None
        return input, weight.contiguous(memory_format=layout), scale, bias, self.relu

    def backward_arguments(self) -> tuple[Any, ...]:
        """The arguments of the op that computes the gradients: of input, weight and, where there is one, bias."""
        input, weight, scale, bias, relu = self.arguments()
        generator = torch.Generator().manual_seed(1)
        shape = (self.num_images, self.output_channels, *self.size)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        grad, output = (torch.randn(shape, generator=generator).contiguous(memory_format=layout) for _ in range(2))
        return grad, output.clamp_(min=0) if relu else None, input, weight, scale, [True, True, bias is not None]


CASES = tuple(
    ConvCase(*arguments, channels_last=channels_last)
    for arguments in (
        # name, N, C, O, (H, W), scaled, biased, relu
        ("one_tile", 1, 16, 16, (6, 6), False, False, False),
        ("edges", 2, 32, 48, (13, 20), True, True, False),
        ("relu", 2, 32, 48, (13, 20), False, True, True),
        ("many_small_maps", 11, 16, 32, (7, 7), True, False, True),
        ("one_pixel", 1, 32, 16, (1, 1), True, True, False),
        ("one_row", 3, 16, 16, (1, 30), False, True, True),
        ("one_column", 1, 16, 16, (25, 1), True, True, True),
        ("half_a_panel", 1, 16, 80, (9, 9), True, True, True),
        ("filters_in_parts", 1, 512, 544, (7, 8), True, True, True),
        ("several_blocks", 1, 256, 128, (60, 90), False, True, True),
        ("no_images", 0, 16, 16, (5, 5), True, True, False),
    )
    for channels_last in (False, True)
)

# Of a training step at 800 x 1344, R-50-FPN: pyramid output and RPN head on the finest level, mask head, res4.
PYRAMID = ConvCase("pyramid_p2", 1, 256, 256, (200, 336), scaled=False, relu=True)
MASK_HEAD = ConvCase("mask_head", 128, 256, 256, (14, 14), scaled=False, relu=True)
RES4 = ConvCase("res4", 1, 256, 256, (50, 84), biased=False, relu=True)
