"""Batches of images: what is padded, and to which size."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list


def images(*sizes):
    return [torch.arange(3.0 * h * w).reshape(3, h, w) + 1 for h, w in sizes]


@pytest.mark.parametrize(("divisor", "padded"), [(0, (7, 9)), (1, (7, 9)), (4, (8, 12)), (32, (32, 32))])
def test_padding(divisor, padded):
    given = images((5, 9), (7, 4))
    batch = to_image_list(given, divisor)
    assert batch.tensors.shape == (2, 3, *padded)
    assert batch.image_sizes == [(5, 9), (7, 4)]
    for image, slot in zip(given, batch.tensors, strict=True):
        height, width = image.shape[1:]
        assert torch.equal(slot[:, :height, :width], image)
        assert slot.sum() == image.sum(), "nothing but zeros around the image"


def test_tensors():
    (image,) = images((5, 9))
    assert to_image_list(image, 4).tensors.shape == (1, 3, 8, 12)
    batch = torch.stack(images((8, 8), (8, 8)))
    assert to_image_list(batch).tensors is batch
    assert to_image_list(batch, 16).tensors.shape == (2, 3, 16, 16)
    assert to_image_list(batch, 16).image_sizes == [(8, 8), (8, 8)]


def test_an_image_list_stays():
    batch = to_image_list(images((5, 9)))
    assert to_image_list(batch, 32) is batch
    assert len(batch) == 1
    half = batch.to(torch.float16)
    assert isinstance(half, ImageList)
    assert half.tensors.dtype == torch.float16
    assert half.image_sizes == [(5, 9)]


def test_sizes_travel_as_a_tensor():
    batch = to_image_list(images((5, 9), (7, 4)))
    assert batch.sizes.dtype == torch.int64
    assert batch.sizes.tolist() == [[5, 9], [7, 4]]
    assert batch.to(torch.float16).sizes is batch.sizes
    moved = batch.to("meta", torch.float16, non_blocking=True)
    assert (moved.sizes.device.type, moved.sizes.dtype) == ("meta", torch.int64)
    assert moved.image_sizes == [(5, 9), (7, 4)]
    assert ImageList(torch.zeros(0, 3, 4, 4), []).sizes.shape == (0, 2)


@pytest.mark.gpu
def test_sizes_go_to_the_gpu_and_are_pinned():
    batch = to_image_list(images((5, 9), (7, 4)))
    pinned = batch.pin_memory()
    assert pinned.tensors.is_pinned()
    assert pinned.sizes.is_pinned()
    moved = pinned.to("cuda", non_blocking=True)
    assert moved.sizes.device == moved.tensors.device
    assert moved.sizes.tolist() == [[5, 9], [7, 4]]


@pytest.mark.parametrize("given", ["image", 3, [[1, 2]], [torch.zeros(3, 3)], torch.zeros(2, 2)])
def test_what_is_no_image(given):
    with pytest.raises(TypeError, match=r"expected images \[C, H, W\]"):
        to_image_list(given)


def test_faulty_batches():
    with pytest.raises(ValueError, match="at least one image"):
        to_image_list([])
    with pytest.raises(ValueError, match="agree in channels and type"):
        to_image_list([torch.zeros(3, 2, 2), torch.zeros(1, 2, 2)])
    with pytest.raises(ValueError, match="float16"):
        to_image_list([torch.zeros(3, 2, 2), torch.zeros(3, 2, 2, dtype=torch.float16)])
