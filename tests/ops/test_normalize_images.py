"""Normalisation of padded pixels against NumPy, image by image, and through opcheck, compile and faults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.ops import normalize_images
from maskrcnn_benchmark.ops.normalize_images import normalize_images_reference

OP = torch.ops.mrcnn.normalize_images
MEAN = torch.tensor([102.9801, 115.9465, 122.7717])
STD = torch.tensor([57.375, 1.0, 0.229])
FORMATS = (torch.contiguous_format, torch.channels_last)


@dataclass(frozen=True)
class PixelCase:
    """A padded batch."""

    shape: tuple[int, int, int]  # N, H, W
    sizes: tuple[tuple[int, int], ...]

    def make(self, layout: str = "channels_last") -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels uint8 [N, 3, H, W], also beside the images, and sizes [N, 2]."""
        images, height, width = self.shape
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (images, 3, height, width), generator=generator, dtype=torch.uint8)
        sizes = torch.tensor(self.sizes, dtype=torch.int64).reshape(-1, 2)
        return LAYOUTS[layout](pixels), sizes


LAYOUTS = {
    "planes": lambda pixels: pixels,
    "channels_last": lambda pixels: pixels.contiguous(memory_format=torch.channels_last),
    "transposed": lambda pixels: pixels.transpose(2, 3).contiguous().transpose(2, 3),
    "every_second": lambda pixels: pixels.repeat_interleave(2, dim=3)[..., ::2],
    "part_of_planes": lambda pixels: torch.nn.functional.pad(pixels, (3, 2, 1, 4))[:, :, 1:-4, 3:-2],
    "part_of_channels_last": lambda pixels: torch.nn.functional.pad(pixels, (3, 2, 1, 4)).contiguous(
        memory_format=torch.channels_last
    )[:, :, 1:-4, 3:-2],
}

CASES = {
    "two_sizes": PixelCase((2, 40, 33), ((37, 33), (40, 12))),
    "more_than_a_block": PixelCase((1, 3, 777), ((2, 770),)),
    "a_whole_block": PixelCase((1, 2, 256), ((2, 256),)),
    "one_pixel": PixelCase((1, 1, 1), ((1, 1),)),
    "one_column": PixelCase((3, 5, 1), ((5, 1), (2, 1), (1, 1))),
    "one_row": PixelCase((2, 1, 9), ((1, 9), (1, 4))),
    "nothing_inside": PixelCase((2, 4, 5), ((0, 5), (4, 0))),
    "sizes_beyond": PixelCase((1, 4, 5), ((9, 9),)),
    "no_images": PixelCase((0, 4, 5), ()),
}


def bits(tensor):
    return tensor.contiguous().view(torch.int32)


def by_numpy(pixels, sizes, mean, std, reverse):
    """One image and channel at a time, in float32."""
    result = np.zeros(pixels.shape, dtype=np.float32)
    order = (2, 1, 0) if reverse else (0, 1, 2)
    for image, out, (height, width) in zip(pixels.numpy(), result, sizes.tolist(), strict=True):
        for c, channel in enumerate(order):
            values = image[channel, :height, :width].astype(np.float32) - np.float32(mean[c])
            out[c, :height, :width] = values / np.float32(std[c]) if std is not None else values
    return torch.from_numpy(result)


@pytest.mark.parametrize("std", [None, STD])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_equals_numpy_to_the_last_bit(name, layout, std):
    pixels, sizes = CASES[name].make(layout)
    for reverse in (False, True):
        expected = by_numpy(pixels, sizes, MEAN, std, reverse)
        for memory_format in FORMATS:
            found = normalize_images(pixels, sizes, mean=MEAN, std=std, reverse=reverse, memory_format=memory_format)
            plain = normalize_images_reference(pixels, sizes, MEAN, std, reverse, memory_format == torch.channels_last)
            for result in (found, plain):
                assert result.is_contiguous(memory_format=memory_format)
                assert torch.equal(bits(result), bits(expected))


def test_one_and_two_threads_agree_bit_for_bit(threads):
    pixels, sizes = PixelCase((3, 200, 70), ((200, 70), (150, 64), (3, 1))).make()
    results = []
    for count in (1, 2):
        threads(count)
        results.append(normalize_images(pixels, sizes, mean=MEAN, std=STD))
    assert torch.equal(*map(bits, results))


@pytest.mark.parametrize("layout", ["planes", "channels_last"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck(layout, channels_last):
    pixels, sizes = CASES["two_sizes"].make(layout)
    for std in (None, STD):
        torch.library.opcheck(OP.default, (pixels, sizes, MEAN, std, True, channels_last))


def test_compiled_without_graph_breaks():
    function = lambda pixels, sizes: normalize_images(pixels, sizes, mean=MEAN) * 2  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    pixels, sizes = CASES["two_sizes"].make()
    assert torch.equal(compiled(pixels, sizes), function(pixels, sizes))


def test_faults_name_the_argument():
    pixels, sizes = CASES["two_sizes"].make()
    for function in (OP, normalize_images_reference):
        with pytest.raises(ValueError, match=r"normalize_images: pixels must have the shape \[N, 3, H, W\]"):
            function(pixels[:, :2], sizes, MEAN, None, False, False)
        with pytest.raises(TypeError, match="pixels must be uint8"):
            function(pixels.float(), sizes, MEAN, None, False, False)
        with pytest.raises(ValueError, match=r"sizes must have the shape \[2, 2\]"):
            function(pixels, sizes[:1], MEAN, None, False, False)
        with pytest.raises(TypeError, match="sizes must be int64"):
            function(pixels, sizes.int(), MEAN, None, False, False)
        with pytest.raises(ValueError, match=r"mean must have the shape \[3\]"):
            function(pixels, sizes, MEAN[:2], None, False, False)
        with pytest.raises(TypeError, match="std must be float32"):
            function(pixels, sizes, MEAN, STD.double(), False, False)
        with pytest.raises(ValueError, match=r"all tensors must lie on one device, got .*mean on meta"):
            function(pixels, sizes, MEAN.to("meta"), None, False, False)
