"""Masks of every kind (polygons, RLE, bitmaps) against pycocotools and numpy."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask, decode_rle

WIDTH, HEIGHT = 24, 16
SIZE = (WIDTH, HEIGHT)
TRIANGLE = [2.0, 1.0, 20.0, 3.0, 7.5, 14.0]
SQUARES = [[1.0, 1, 6, 1, 6, 6, 1, 6], [10.0, 8, 15, 8, 15, 13, 10, 13]]


def bitmap(seed=0):
    generator = np.random.default_rng(seed)
    return np.kron(generator.random((4, 6)) < 0.5, np.ones((4, 4), np.uint8)).astype(np.uint8)


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask))


def run_lengths(mask):
    """COCO's uncompressed RLE: lengths of runs down the columns, starting with zeros."""
    flat = mask.reshape(-1, order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *changes, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def draw(rings):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, HEIGHT, WIDTH)))


def kinds(mask):
    compressed = encode(mask)
    return {
        "compressed": compressed,
        "text": {"size": compressed["size"], "counts": compressed["counts"].decode()},
        "uncompressed": {"size": [HEIGHT, WIDTH], "counts": run_lengths(mask)},
        "array": mask,
        "bool array": mask.astype(bool),
        "tensor": torch.from_numpy(mask),
    }


@pytest.mark.parametrize("mode", ["poly", "mask"])
@pytest.mark.parametrize("kind", sorted(kinds(bitmap())))
def test_bitmaps_and_rles_keep_their_pixels(kind, mode):
    masks = SegmentationMask([kinds(bitmap(seed))[kind] for seed in range(4)], SIZE, mode=mode)
    assert len(masks) == 4
    found = masks.get_mask_tensor()
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), [bitmap(seed) for seed in range(4)])
    other = "mask" if mode == "poly" else "poly"
    assert masks.convert(other).mode == other
    assert torch.equal(masks.convert(other).get_mask_tensor(), found)


@pytest.mark.parametrize("rings", [[TRIANGLE], SQUARES, [np.reshape(TRIANGLE, (-1, 2))], [torch.tensor(TRIANGLE)]])
@pytest.mark.parametrize("mode", ["poly", "mask"])
def test_polygons_are_drawn_as_pycocotools_draws_them(rings, mode):
    masks = SegmentationMask([rings], SIZE, mode=mode)
    expected = draw([np.reshape(ring, -1).tolist() for ring in rings])
    assert masks.get_mask_tensor().shape == (HEIGHT, WIDTH), "one object: without the first dimension"
    np.testing.assert_array_equal(masks.get_mask_tensor().numpy(), expected)


def test_many_kinds_in_one():
    masks = SegmentationMask([[TRIANGLE], bitmap(), encode(bitmap(1))], SIZE)
    assert [len(instance.polygons) > 0 for instance in masks.instances.polygons] == [True] * 3
    assert masks.instances.polygons[0].polygons[0].tolist() == TRIANGLE
    np.testing.assert_array_equal(masks.get_mask_tensor().numpy(), [draw([TRIANGLE]), bitmap(), bitmap(1)])
    stacked = SegmentationMask(torch.from_numpy(np.stack([bitmap(), bitmap(1)])), SIZE, mode="mask")
    assert torch.equal(stacked.get_mask_tensor(), masks[1:].get_mask_tensor())


@pytest.mark.parametrize("mode", ["poly", "mask"])
def test_objects_without_area(mode):
    for empty in ([], [[1.0, 1, 5, 5]], np.zeros((HEIGHT, WIDTH))):
        masks = SegmentationMask([empty], SIZE, mode=mode)
        assert masks.get_mask_tensor().shape == (HEIGHT, WIDTH)
        assert masks.get_mask_tensor().sum() == 0
        assert len(masks.transpose(0).resize((5, 5)).crop((1, 1, 3, 3))) == 1
    none = SegmentationMask([], SIZE, mode=mode)
    assert none.get_mask_tensor().shape == (0, HEIGHT, WIDTH)
    for moved in (none.transpose(0), none.resize((5, 7)), none.crop((1, 1, 3, 3)), none.convert("mask"), none[:0]):
        assert len(moved) == 0
    assert list(none) == []


@pytest.mark.parametrize("method", [FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM])
def test_flips(method):
    masks = SegmentationMask([bitmap(), bitmap(1)], SIZE, mode="mask")
    np.testing.assert_array_equal(
        masks.transpose(method).get_mask_tensor().numpy(), np.flip([bitmap(), bitmap(1)], axis=2 - method)
    )
    flipped = SegmentationMask([[TRIANGLE]], SIZE).transpose(method)
    ring = flipped.instances.polygons[0].polygons[0].numpy()
    expected = np.array(TRIANGLE)
    expected[method::2] = (WIDTH, HEIGHT)[method] - expected[method::2] - 1  # the legacy convention
    np.testing.assert_array_equal(ring, expected.astype(np.float32))
    again = flipped.transpose(method).instances.polygons[0].polygons[0]
    assert again.tolist() == TRIANGLE
    with pytest.raises(ValueError, match="not 5"):
        masks.transpose(5)


def test_crop():
    masks = SegmentationMask([bitmap(), bitmap(1)], SIZE, mode="mask").crop((3, 2, 11, 9))
    assert masks.size == (8, 7)
    np.testing.assert_array_equal(masks.get_mask_tensor().numpy(), np.stack([bitmap(), bitmap(1)])[:, 2:9, 3:11])
    polygons = SegmentationMask([bitmap(), bitmap(1)], SIZE).crop((3, 2, 11, 9))
    assert polygons.size == (8, 7)
    assert torch.equal(polygons.get_mask_tensor(), masks.get_mask_tensor())


@pytest.mark.parametrize("mode", ["poly", "mask"])
@pytest.mark.parametrize("box", [(-5, -5, 100, 100), (23.5, 15.5, 40, 40), (5, 5, 5, 5), (2.25, 3.5, 9.75, 12.5)])
def test_windows_at_the_border_and_without_area(mode, box):
    masks = SegmentationMask([bitmap(), bitmap(1)], SIZE, mode=mode).crop(torch.tensor(box))
    width, height = masks.size
    assert width >= 1
    assert height >= 1
    assert masks.get_mask_tensor().shape[0] == 2


@pytest.mark.parametrize("mode", ["poly", "mask"])
def test_resize_by_whole_factors_repeats_pixels(mode):
    masks = SegmentationMask([bitmap(), bitmap(1)], SIZE, mode=mode).resize((2 * WIDTH, 3 * HEIGHT))
    assert masks.size == (2 * WIDTH, 3 * HEIGHT)
    repeated = np.stack([bitmap(), bitmap(1)]).repeat(3, axis=1).repeat(2, axis=2)
    if mode == "poly":
        np.testing.assert_array_equal(masks.get_mask_tensor().numpy(), repeated)
    else:  # bilinear: equal but for the corners of blocks
        assert (masks.get_mask_tensor().numpy() == repeated).mean() > 0.97
    assert masks.resize((WIDTH, HEIGHT)).size == SIZE
    assert masks.resize(7).size == (7, 7)


@pytest.mark.parametrize("mode", ["poly", "mask"])
@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (2, [2]),
        (-1, [4]),
        (slice(1, 4), [1, 2, 3]),
        ([3, 0], [3, 0]),
        (torch.tensor([4, 4]), [4, 4]),
        (torch.tensor(1), [1]),
        (torch.tensor([True, False, True, False, False]), [0, 2]),
        (torch.zeros(5, dtype=torch.bool), []),
    ],
)
def test_indexing(mode, item, expected):
    drawn = np.stack([bitmap(seed) for seed in range(5)])
    chosen = SegmentationMask(drawn, SIZE, mode=mode)[item]
    assert isinstance(chosen, SegmentationMask)
    assert (len(chosen), chosen.mode, chosen.size) == (len(expected), mode, SIZE)
    found = chosen.get_mask_tensor().reshape(-1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(found.numpy(), drawn[expected].reshape(-1, HEIGHT, WIDTH))


def test_iteration_copies_and_devices():
    masks = SegmentationMask([bitmap(seed) for seed in range(3)], SIZE)
    assert [len(mask) for mask in masks] == [1, 1, 1]
    for twin in (
        pickle.loads(pickle.dumps(masks)),
        copy.deepcopy(masks),
        masks.to("cpu"),
        SegmentationMask(masks, SIZE),
    ):
        assert torch.equal(twin.get_mask_tensor(), masks.get_mask_tensor())
    joined = SegmentationMask.cat([masks[:1], masks[1:].convert("mask")])
    assert joined.mode == "poly"
    assert torch.equal(joined.get_mask_tensor(), masks.get_mask_tensor())
    assert repr(masks) == "SegmentationMask(num_instances=3, image_width=24, image_height=16, mode=poly)"


def test_decode_rle():
    for rle in (kinds(bitmap())[kind] for kind in ("compressed", "text", "uncompressed")):
        np.testing.assert_array_equal(decode_rle(rle).numpy(), bitmap())


@pytest.mark.parametrize("mode", ["poly", "mask"])
def test_errors(mode):
    with pytest.raises(ValueError, match=r"\[4, 4\] pixels does not fit an image of \[16, 24\]"):
        SegmentationMask([np.ones((4, 4))], SIZE, mode=mode)
    with pytest.raises(ValueError, match="does not fit"):
        SegmentationMask([encode(np.ones((4, 4), np.uint8))], SIZE, mode=mode)
    with pytest.raises(TypeError, match="a mask must be a list of polygons"):
        SegmentationMask(["square"], SIZE, mode=mode)
    with pytest.raises(TypeError, match="a mask must be a list of polygons"):
        SegmentationMask([{"size": [1, 1]}], SIZE, mode=mode)
    with pytest.raises(ValueError, match="pairs x, y, but has 7"):
        SegmentationMask([[[1.0, 2, 3, 4, 5, 6, 7]]], SIZE, mode=mode)


def test_other_errors():
    with pytest.raises(ValueError, match="'poly' or 'mask', not 'rle'"):
        SegmentationMask([], SIZE, mode="rle")
    with pytest.raises(ValueError, match="one image size"):
        SegmentationMask.cat([SegmentationMask([], SIZE), SegmentationMask([], (1, 1))])
