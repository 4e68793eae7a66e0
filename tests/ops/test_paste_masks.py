"""Mask pasting against the original Masker written with torch's interpolate, and pycocotools' encode of its masks."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import interpolate, pad
from torch.utils._python_dispatch import TorchDispatchMode

from maskrcnn_benchmark.ops import paste_masks, paste_masks_rle
from maskrcnn_benchmark.ops._library import plain_kernel
from maskrcnn_benchmark.ops._resize import resize_window, torch_fuses_products
from maskrcnn_benchmark.ops.paste_masks import _prepare


@pytest.fixture(autouse=True)
def one_thread(threads):
    """Thousands of small calls of interpolate: on busy cores a second thread costs more than it gives."""
    threads(1)


def paste_by_masker(mask, box, image_size, threshold, padding=1):
    side = mask.shape[-1]
    ratio = float(side + 2 * padding) / side
    padded = pad(mask.float(), (padding,) * 4)
    half_width, half_height = (box[2] - box[0]) * 0.5, (box[3] - box[1]) * 0.5
    x, y = (box[2] + box[0]) * 0.5, (box[3] + box[1]) * 0.5
    half_width, half_height = half_width * ratio, half_height * ratio
    x1, y1, x2, y2 = (int(v) for v in (x - half_width, y - half_height, x + half_width, y + half_height))
    size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
    values = interpolate(padded[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    values = values > threshold if threshold >= 0 else (values * 255).to(torch.uint8)
    image = torch.zeros(image_size, dtype=values.dtype)
    left, right, top, bottom = max(x1, 0), min(x2 + 1, image_size[1]), max(y1, 0), min(y2 + 1, image_size[0])
    if left < right and top < bottom:
        image[top:bottom, left:right] = values[top - y1 : bottom - y1, left - x1 : right - x1]
    return image


def paste_all(masks, boxes, image_size, threshold, padding=1):
    return torch.stack(
        [paste_by_masker(*pair, image_size, threshold, padding) for pair in zip(masks, boxes, strict=True)]
    )


def encode(dense):
    return [coco_mask.encode(np.asfortranarray(image.numpy().view(np.uint8)))["counts"] for image in dense]


def smooth_masks(num, side, seed):
    """Blobs with a soft edge, as a mask head gives them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num, 1, 6, 6, generator=generator) * 8
    return interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)[:, 0].sigmoid()


def boxes_around(num, image_size, seed, largest=1.3):
    """Boxes of all sizes, many of them partly or wholly outside the image, some of whole pixels."""
    generator = torch.Generator().manual_seed(seed)
    limit = torch.tensor([image_size[1], image_size[0]])
    centre = (torch.rand(num, 2, generator=generator) * 1.4 - 0.2) * limit
    half = torch.exp(torch.rand(num, 2, generator=generator) * (limit * largest / 2).log()) * 0.7
    boxes = torch.cat([centre - half, centre + half], dim=1)
    boxes[::4] = boxes[::4].round()
    return boxes


def check(masks, boxes, image_size, threshold=0.5, padding=1):
    wanted = paste_all(masks, boxes, image_size, threshold, padding)
    named = {"image_size": image_size, "threshold": threshold, "padding": padding}
    assert torch.equal(paste_masks(masks, boxes, **named), wanted)
    if threshold >= 0:
        rles = paste_masks_rle(masks, boxes, **named)
        assert [rle["counts"] for rle in rles] == encode(wanted)
        assert all(rle["size"] == list(image_size) for rle in rles)
    return wanted


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.8, -1.0])
@pytest.mark.parametrize("kind", ["noise", "smooth", "binary"])
def test_equals_the_masker(kind, threshold):
    image_size = (190, 260)
    masks = torch.rand(60, 28, 28, generator=torch.Generator().manual_seed(0))
    masks = {"noise": masks, "smooth": smooth_masks(60, 28, 1), "binary": masks.round()}[kind]
    wanted = check(masks, boxes_around(60, image_size, 2), image_size, threshold)
    assert wanted.any()
    assert not wanted.all()


@pytest.mark.parametrize(("side", "padding"), [(1, 1), (2, 0), (7, 2), (14, 1), (28, 0), (33, 1), (56, 3)])
def test_other_sides_and_borders(side, padding):
    masks = torch.rand(40, side, side, generator=torch.Generator().manual_seed(3))
    check(masks, boxes_around(40, (120, 90), 4), (120, 90), padding=padding)


def test_every_frame_size_around_the_change_of_formula():
    """The formula changes where height + width of the output exceed 128; 30 is the size of the mask itself."""
    sides = [
        (1, 127),
        (1, 128),
        (30, 98),
        (30, 99),
        (64, 64),
        (64, 65),
        (65, 64),
        (127, 1),
        (30, 30),
        (30, 200),
        (5, 5),
    ]
    masks = torch.rand(len(sides), 30, 30, generator=torch.Generator().manual_seed(5))
    boxes = torch.tensor([[3.2, 4.2, 2.2 + width, 3.2 + height] for height, width in sides])
    check(masks, boxes, (210, 215), padding=0)


def test_large_image():
    masks, boxes = smooth_masks(12, 28, 6), boxes_around(12, (800, 1333), 7)
    check(masks, boxes, (800, 1333))
    check(torch.rand(4, 28, 28), boxes[:4], (800, 1333))


def test_masks_of_one_half_stay_at_the_threshold():
    masks = torch.full((30, 28, 28), 0.5)
    masks[::2, :, 14:] = 1
    check(masks, boxes_around(30, (150, 150), 8), (150, 150))


def test_degenerate_boxes():
    boxes = torch.tensor(
        [
            [10.0, 10, 10, 10],
            [10, 10, 60, 10],
            [10, 10, 10, 60],
            [40, 40, 20, 20],
            [40, 10, 39.5, 60],
            [-500, -500, -400, -400],
            [500, 10, 600, 20],
            [0, 0, 99, 79],
            [-1, -1, -1, -1],
            [-0.4, -0.4, 0.4, 0.4],
        ]
    )
    wanted = check(torch.rand(len(boxes), 28, 28), boxes, (80, 100))
    assert not wanted[3].any()
    assert not wanted[5:7].any()


def test_huge_boxes_show_their_middle():
    masks = torch.zeros(3, 4, 4)
    masks[:, 1:3, 1:3] = 1
    boxes = torch.tensor(
        [[-1e5, -1e5, 1e5, 1e5], [-1e7, -1e7, 1e7, 1e7], [-torch.inf, -torch.inf, torch.inf, torch.inf]]
    )
    dense = paste_masks(masks, boxes, image_size=(40, 50), threshold=0.5)
    assert dense[:2].all()
    rles = paste_masks_rle(masks, boxes, image_size=(40, 50), threshold=0.5)
    assert [rle["counts"] for rle in rles] == encode(dense)


def test_values_that_are_not_numbers():
    masks = torch.rand(4, 28, 28)
    masks[0, 5] = torch.nan
    masks[1, 5] = torch.inf
    masks[2, 7, 7] = -torch.inf
    boxes = boxes_around(4, (90, 90), 9).clamp(0, 89)
    check(masks, boxes, (90, 90))
    boxes[0, 2] = torch.nan
    assert not paste_masks(masks, boxes, image_size=(90, 90), threshold=0.5)[0].any()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_both_roundings_equal_the_plain_kernel_for_any_threads(threads, fused, seed):
    masks = torch.rand(40, 28, 28, generator=torch.Generator().manual_seed(seed))
    padded, frames = _prepare(masks, boxes_around(40, (200, 240), seed + 50), 1)
    for name in ("paste_masks", "paste_masks_rle"):
        arguments = (padded, frames, 200, 240, 0.45, fused)
        wanted = plain_kernel(name)(*arguments)
        for count in (1, 2):
            threads(count)
            got = getattr(torch.ops.mrcnn, name)(*arguments)
            assert all(torch.equal(*pair) for pair in zip(got, wanted, strict=True))


@pytest.mark.parametrize("size", [(17, 23), (64, 64), (64, 65), (30, 300), (400, 311)])
def test_resize_equals_interpolate_to_the_bit(size):
    mask = torch.rand(30, 30)
    window = (0, size[0], 0, size[1])
    got = resize_window(mask, size=size, window=window, fused=torch_fuses_products())
    assert torch.equal(got, interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)[0, 0])


@pytest.mark.slow
def test_equals_the_masker_where_torch_does_not_fuse(repository):
    code = (
        "import torch; from tests.ops import test_paste_masks as tests\n"
        "assert not tests.torch_fuses_products()\n"
        "tests.test_equals_the_masker('noise', 0.5); tests.test_resize_equals_interpolate_to_the_bit((64, 65))\n"
        "tests.test_resize_equals_interpolate_to_the_bit((64, 64))\n"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": str(repository)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, env=environment, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()


def test_no_detections():
    masks, boxes = torch.zeros(0, 28, 28), torch.zeros(0, 4)
    assert paste_masks(masks, boxes, image_size=(5, 7), threshold=0.5).shape == (0, 5, 7)
    assert paste_masks_rle(masks, boxes, image_size=(5, 7), threshold=0.5) == []


def test_image_of_one_pixel_and_full_masks():
    masks, boxes = torch.ones(2, 28, 28), torch.tensor([[0.0, 0, 0, 0], [-40, -40, 40, 40]])
    wanted = check(masks, boxes, (1, 1))
    assert wanted[1].all()
    full = check(masks[:1], torch.tensor([[-50.0, -50, 150, 150]]), (60, 70))
    assert full.all()


def test_half_precision_computes_in_float32_and_no_gradient_flows():
    masks, boxes = smooth_masks(6, 28, 10).bfloat16(), boxes_around(6, (80, 80), 11)
    got = paste_masks(masks.requires_grad_(), boxes.requires_grad_(), image_size=(80, 80), threshold=-1)
    assert torch.equal(got, paste_masks(masks.float(), boxes, image_size=(80, 80), threshold=-1))
    assert not got.requires_grad
    assert len(paste_masks_rle(masks, boxes, image_size=(80, 80), threshold=0.5)) == 6


@pytest.mark.parametrize("threshold", [0.5, -1.0])
def test_opcheck(threshold):
    padded, frames = _prepare(smooth_masks(3, 28, 12), boxes_around(3, (60, 80), 13), 1)
    torch.library.opcheck(torch.ops.mrcnn.paste_masks, (padded, frames, 60, 80, threshold, True))


def test_opcheck_of_run_lengths():
    padded, frames = _prepare(smooth_masks(3, 28, 12), boxes_around(3, (60, 80), 13), 1)
    torch.library.opcheck(torch.ops.mrcnn.paste_masks_rle, (padded, frames, 60, 80, 0.5, True))


def test_compiles_without_a_break():
    torch._dynamo.reset()
    masks, boxes = smooth_masks(3, 28, 14), boxes_around(3, (60, 80), 15)

    def areas(masks, boxes):
        return paste_masks(masks.sqrt(), boxes + 1, image_size=(60, 80), threshold=0.5).sum(dim=(1, 2))

    assert torch.equal(torch.compile(areas, fullgraph=True, backend="aot_eager")(masks, boxes), areas(masks, boxes))


class DevicesOfPasting(TorchDispatchMode):
    """Notes on which devices the arguments of the pasting ops lie."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "mrcnn":
            self.found.append({value.device.type for value in args if isinstance(value, torch.Tensor)})
        return func(*args, **(kwargs or {}))


def test_masks_on_a_gpu_are_pasted_on_the_cpu():
    """With fake tensors, which need no GPU: the plain kernel would launch a dozen kernels for each mask there."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        masks, boxes = torch.rand(3, 28, 28, device="cuda"), torch.rand(3, 4, device="cuda")
        with DevicesOfPasting() as devices:
            images = paste_masks(masks, boxes, image_size=(20, 30), threshold=0.5)
    assert devices.found == [{"cpu"}]
    assert images.device.type == "cuda"
    assert images.shape == (3, 20, 30)


@pytest.mark.gpu
@pytest.mark.parametrize("threshold", [0.5, -1.0])
def test_masks_on_a_gpu_give_the_same(threshold):
    masks, boxes = smooth_masks(12, 28, 16), boxes_around(12, (120, 90), 17)
    named = {"image_size": (120, 90), "threshold": threshold}
    images = paste_masks(masks.cuda(), boxes.cuda(), **named)
    assert images.is_cuda
    assert torch.equal(images.cpu(), paste_masks(masks, boxes, **named))
    if threshold >= 0:
        assert paste_masks_rle(masks.cuda(), boxes.cuda(), **named) == paste_masks_rle(masks, boxes, **named)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": torch.zeros(2, 4, device="meta")}, "all tensors must lie on one device, got masks on cpu, boxes on"),
        ({"masks": torch.zeros(2, 1, 28, 28)}, r"masks must have the shape \[R, M, M\]"),
        ({"masks": torch.zeros(2, 28, 14)}, "masks must be square"),
        ({"boxes": torch.zeros(3, 4)}, r"boxes must have the shape \[2, 4\]"),
        ({"image_size": (0, 5)}, r"image_size must be positive, got \(0, 5\)"),
        ({"padding": -1}, "padding must be at least 0"),
    ],
)
def test_wrong_arguments(changes, message):
    arguments = {"masks": torch.zeros(2, 28, 28), "boxes": torch.zeros(2, 4), "image_size": (5, 5), "threshold": 0.5}
    with pytest.raises(ValueError, match=message):
        paste_masks(**arguments | changes)
    with pytest.raises(ValueError, match=message):
        paste_masks_rle(**arguments | changes)


def test_run_lengths_need_a_threshold():
    with pytest.raises(ValueError, match="threshold must be at least 0, got -1"):
        paste_masks_rle(torch.zeros(2, 28, 28), torch.zeros(2, 4), image_size=(5, 5), threshold=-1)
