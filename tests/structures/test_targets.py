"""Targets: what goes in as BoxLists comes out again."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from maskrcnn_benchmark.structures.targets import Targets

SIZES = [(24, 16), (10, 12), (30, 20)]  # width, height


def boxlist(size, count, seed, masks=None):
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.integers(0, min(size), (count, 2, 2)), axis=1).reshape(count, 4)
    boxes = BoxList(corners.astype(np.float32), size)
    boxes.add_field("labels", torch.from_numpy(generator.integers(1, 5, count)))
    if masks == "poly":
        rings = [[generator.random(2 * v) * 10 for v in generator.integers(3, 7, k + 1)] for k in range(count)]
        boxes.add_field("masks", SegmentationMask(rings, size))
    elif masks == "mask":
        bitmaps = generator.random((count, size[1], size[0])) < 0.5
        boxes.add_field("masks", SegmentationMask(bitmaps, size, mode="mask"))
    return boxes


def batch(masks=None):
    return [boxlist(size, count, seed, masks) for seed, (size, count) in enumerate(zip(SIZES, (2, 0, 3), strict=True))]


def assert_same(found, expected):
    assert found.size == expected.size
    assert found.mode == "xyxy"
    assert torch.equal(found.bbox, expected.convert("xyxy").bbox)
    assert found.get_field("labels").dtype == torch.int64
    assert torch.equal(found.get_field("labels"), expected.get_field("labels"))
    if expected.has_field("masks"):
        masks, wanted = found.get_field("masks"), expected.get_field("masks")
        assert masks.mode == "poly"
        assert torch.equal(masks.get_mask_tensor(), wanted.get_mask_tensor())
        if wanted.mode == "poly":
            for instance, original in zip(masks.instances.polygons, wanted.instances.polygons, strict=True):
                assert [r.tolist() for r in instance.polygons] == [r.tolist() for r in original.polygons]
    else:
        assert not found.has_field("masks")


@pytest.mark.parametrize("mode", ["xyxy", "xywh"])
@pytest.mark.parametrize("masks", [None, "poly", "mask"])
def test_round_trip(masks, mode):
    given = [boxes.convert(mode) for boxes in batch(masks)]
    targets = Targets.from_boxlists(given)
    assert len(targets) == 3
    assert targets.boxes.shape == (3, 3, 4)
    assert targets.labels.dtype == torch.int64
    assert targets.image_sizes == [(16, 24), (12, 10), (20, 30)]
    assert targets.valid.sum(dim=1).tolist() == [2, 0, 3]
    assert (targets.boxes[~targets.valid] == 0).all()
    for found in (targets.to_boxlists(), list(targets), [targets[i] for i in range(3)]):
        for each, expected in zip(found, given, strict=True):
            assert_same(each, expected)
    assert_same(targets[-1], given[2])
    with pytest.raises(IndexError, match="image 3 of a batch of 3"):
        targets[3]


def test_slots_of_the_polygons():
    given = batch("poly")
    polygons = Targets.from_boxlists(given).polygons
    assert len(polygons) == 9, "one instance a slot"
    assert [len(polygons.instance(i)) for i in range(9)] == [1, 2, 0, 0, 0, 0, 1, 2, 3]
    last = given[2].get_field("masks").instances.polygons[2].polygons
    assert [ring.reshape(-1).tolist() for ring in polygons.instance(8)] == [ring.tolist() for ring in last]


def test_images_without_objects():
    bare = [BoxList([], size) for size in SIZES]
    targets = Targets.from_boxlists(bare)
    assert targets.boxes.shape == (3, 0, 4)
    assert targets.labels.shape == (3, 0)
    assert targets.polygons is None
    assert [len(boxes) for boxes in targets] == [0, 0, 0]
    mixed = Targets.from_boxlists([bare[0], *batch("poly")])
    assert [len(boxes) for boxes in mixed] == [0, 2, 0, 3]
    for boxes in bare:
        boxes.add_field("masks", SegmentationMask([], boxes.size))
    empty = Targets.from_boxlists(bare)
    assert len(empty.polygons) == 0
    assert len(empty[1].get_field("masks")) == 0


def test_moving():
    targets = Targets.from_boxlists(batch("poly"))
    for twin in (
        targets.to("cpu"),
        targets.to(torch.device("cpu"), non_blocking=True),
        pickle.loads(pickle.dumps(targets)),
    ):
        for found, expected in zip(twin, batch("poly"), strict=True):
            assert_same(found, expected)
    assert Targets.from_boxlists(batch()).to("cpu").polygons is None


@pytest.mark.gpu
def test_moving_to_a_gpu():
    targets = Targets.from_boxlists(batch("poly")).pin_memory()
    assert targets.polygons.coords.is_pinned()
    moved = targets.to("cuda", non_blocking=True)
    assert moved.boxes.is_cuda
    assert moved.polygons.instance_offsets.is_cuda
    for found, expected in zip(moved.to("cpu"), batch("poly"), strict=True):
        assert_same(found, expected)


def test_errors():
    with pytest.raises(ValueError, match="at least one image"):
        Targets.from_boxlists([])
    unlabelled = BoxList([[0, 0, 1, 1]], (5, 5))
    with pytest.raises(ValueError, match="image 1 has 1 boxes but no field 'labels'"):
        Targets.from_boxlists([BoxList([], (5, 5)), unlabelled])
    for labels in (torch.tensor([0]), torch.tensor([1, 2])):
        unlabelled.add_field("labels", labels)
        with pytest.raises(ValueError, match="labels of 1 or more"):
            Targets.from_boxlists([unlabelled])
    with pytest.raises(ValueError, match="image 0 has boxes but no field 'masks'"):
        Targets.from_boxlists([batch()[0], batch("poly")[2]])
    wrong = batch("poly")[2]
    wrong.add_field("masks", wrong.get_field("masks")[:1])
    with pytest.raises(ValueError, match="3 boxes but 1 masks"):
        Targets.from_boxlists([wrong])
