"""Keypoints of an image: geometry by hand and by what it must not change, and cells of heat maps against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList
from maskrcnn_benchmark.structures.boxlist_ops import cat_boxlist
from maskrcnn_benchmark.structures.keypoint import (
    Keypoints,
    PersonKeypoints,
    keypoints_of,
    keypoints_to_heat_map,
    mirrored_indices,
)
from maskrcnn_benchmark.structures.targets import Targets

FLIPS = [FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM]
SIZE = (120, 90)


def persons(n=3, size=SIZE, seed=0):
    rng = np.random.RandomState(seed)
    visibility = rng.randint(0, 3, (n, 17, 1))
    points = rng.uniform(0, 1, (n, 17, 2)) * (size[0] - 1, size[1] - 1)
    return PersonKeypoints(np.concatenate([points * (visibility > 0), visibility], axis=2), size)


def test_names_and_partners():
    assert len(PersonKeypoints.NAMES) == 17
    swapped = [PersonKeypoints.NAMES[index] for index in PersonKeypoints.FLIP_INDS]
    for name, partner in zip(PersonKeypoints.NAMES, swapped, strict=True):
        side, _, part = name.partition("_")
        assert partner == {"left": "right", "right": "left"}.get(side, side) + (f"_{part}" if part else "")
    for first, second in PersonKeypoints.CONNECTIONS:
        assert 0 <= first < second < 17


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("head", "tail"), [0, 1]),
        (("LeftPaw", "tail", "rightpaw"), [2, 1, 0]),
        (("wing right", "wing left", "bright_spot"), [1, 0, 2]),
        (("left_hand",), [0]),
        ((), []),
    ],
)
def test_partners_follow_from_names(names, expected):
    assert mirrored_indices(names) == expected


@pytest.mark.parametrize("method", FLIPS)
def test_a_flip_undoes_itself(method):
    keypoints = persons()
    flipped = keypoints.transpose(method)
    assert isinstance(flipped, PersonKeypoints)
    assert not torch.equal(flipped.keypoints, keypoints.keypoints)
    torch.testing.assert_close(flipped.transpose(method).keypoints, keypoints.keypoints, rtol=0, atol=1e-4)


def test_a_flip_by_hand():
    points = torch.zeros(1, 17, 3)
    points[0, 1] = torch.tensor([10.0, 20.0, 2.0])  # left eye
    mirrored = PersonKeypoints(points, SIZE).transpose(FLIP_LEFT_RIGHT).keypoints
    assert mirrored[0, 2].tolist() == [109.0, 20.0, 2.0]  # seen as the right eye
    assert mirrored[0, [0, 1, *range(3, 17)]].abs().sum() == 0  # what is not labelled stays at the origin
    assert PersonKeypoints(points, SIZE).transpose(FLIP_TOP_BOTTOM).keypoints[0, 2].tolist() == [10.0, 69.0, 2.0]


def test_a_flip_needs_to_know_left_from_right():
    with pytest.raises(ValueError, match="flip_inds"):
        Keypoints(torch.ones(1, 2, 3), SIZE).transpose(FLIP_LEFT_RIGHT)
    swapped = Keypoints([[[1, 2, 1], [3, 4, 1]]], SIZE, flip_inds=[1, 0]).transpose(FLIP_LEFT_RIGHT)
    assert swapped.keypoints.tolist() == [[[116, 4, 1], [118, 2, 1]]]
    with pytest.raises(ValueError, match="FLIP_LEFT_RIGHT"):
        persons().transpose(7)


def test_resize_and_crop():
    keypoints = persons()
    resized = keypoints.resize((240, 30))
    assert resized.size == (240, 30)
    torch.testing.assert_close(resized.keypoints, keypoints.keypoints * torch.tensor([2.0, 1 / 3, 1.0]))
    torch.testing.assert_close(resized.resize(SIZE).keypoints, keypoints.keypoints)
    cropped = keypoints.crop((20, 10, 80, 70))
    assert cropped.size == (60, 60)
    for before, after in zip(keypoints.keypoints.reshape(-1, 3), cropped.keypoints.reshape(-1, 3), strict=True):
        x, y, visibility = before.tolist()
        kept = visibility > 0 and 20 <= x < 80 and 10 <= y < 70
        assert after.tolist() == pytest.approx([x - 20, y - 10, visibility] if kept else [0, 0, 0])


def test_what_is_given_in_other_forms():
    flat = [[1.0, 2.0, 2.0, 0.0, 0.0, 0.0]]
    assert Keypoints(flat, SIZE).keypoints.tolist() == [[[1, 2, 2], [0, 0, 0]]]
    assert Keypoints([], SIZE).keypoints.shape == (0, 0, 3)
    with pytest.raises(ValueError, match="shape"):
        Keypoints(torch.zeros(2, 5, 2), SIZE)
    assert type(keypoints_of(torch.zeros(0, 17, 3), SIZE)) is PersonKeypoints
    assert type(keypoints_of(torch.zeros(4, 5, 3), SIZE)) is Keypoints


def test_as_a_field_of_boxes():
    keypoints = persons()
    keypoints.add_field("logits", torch.arange(51.0).reshape(3, 17))
    boxes = BoxList(torch.tensor([[0, 0, 10, 10], [5, 5, 20, 20], [1, 1, 90, 80]]), SIZE)
    boxes.add_field("keypoints", keypoints)
    for index in (1, [1], torch.tensor([False, True, False]), slice(1, 2)):
        chosen = boxes[index].get_field("keypoints")
        assert torch.equal(chosen.keypoints, keypoints.keypoints[1:2])
        assert chosen.get_field("logits").tolist() == [list(range(17, 34))]
    flipped = boxes.resize((60, 45)).transpose(FLIP_LEFT_RIGHT).to("cpu").get_field("keypoints")
    expected = keypoints.resize((60, 45)).transpose(FLIP_LEFT_RIGHT)
    assert torch.equal(flipped.keypoints, expected.keypoints)
    joined = cat_boxlist([boxes[:1], boxes[1:]]).get_field("keypoints")
    assert torch.equal(joined.keypoints, keypoints.keypoints)
    assert joined.has_field("logits")
    with pytest.raises(KeyError, match="scores"):
        joined.get_field("scores")


def boxes_with_keypoints(n, seed, size=SIZE):
    boxes = BoxList(torch.rand(n, 4).cumsum(1) * 20, size)
    boxes.add_field("labels", torch.ones(n, dtype=torch.int64))
    boxes.add_field("keypoints", persons(n, size, seed))
    return boxes


def test_targets_hold_them():
    boxlists = [boxes_with_keypoints(2, 0), boxes_with_keypoints(0, 1), boxes_with_keypoints(3, 2, (64, 48))]
    targets = Targets.from_boxlists(boxlists).to("cpu")
    assert targets.keypoints.shape == (3, 3, 17, 3)
    assert targets.keypoints[0, 2].abs().sum() == targets.keypoints[1].abs().sum() == 0
    for before, after in zip(boxlists, targets, strict=True):
        assert isinstance(after.get_field("keypoints"), PersonKeypoints)
        assert torch.equal(after.get_field("keypoints").keypoints, before.get_field("keypoints").keypoints)
        assert after.get_field("keypoints").size == before.size
    assert Targets.from_boxlists([b.copy_with_fields("labels") for b in boxlists]).keypoints is None


def test_targets_refuse_a_mixture():
    first, second = boxes_with_keypoints(2, 0), boxes_with_keypoints(1, 1)
    with pytest.raises(ValueError, match="image 1 has boxes but no field 'keypoints'"):
        Targets.from_boxlists([first, second.copy_with_fields("labels")])
    second.add_field("keypoints", Keypoints(torch.zeros(1, 5, 3), SIZE))
    with pytest.raises(ValueError, match=r"one number of keypoints, but have \[5, 17\]"):
        Targets.from_boxlists([first, second])
    second.add_field("keypoints", persons(2))
    with pytest.raises(ValueError, match="image 1 has 1 boxes but keypoints of 2 objects"):
        Targets.from_boxlists([first, second])


def cell_by_hand(point, roi, size):
    """Row-major cell of one point in the heat map of one region; None where there is none."""
    x, y, visibility = (float(v) for v in point)
    x1, y1, x2, y2 = (float(v) for v in roi)
    column = size - 1 if x == x2 else (math.floor((x - x1) * size / (x2 - x1)) if x2 > x1 else -1)
    row = size - 1 if y == y2 else (math.floor((y - y1) * size / (y2 - y1)) if y2 > y1 else -1)
    visible = visibility > 0 and 0 <= column < size and 0 <= row < size
    return row * size + column if visible else None


def test_cells_of_heat_maps_against_a_loop():
    rng = np.random.RandomState(1)
    size, count = 8, 300
    corners = rng.randint(0, 40, (count, 2))
    # sides of 0 and powers of two, and points at quarters of a pixel: float32 is exact, points on borders are common
    sides = np.array([0, 1, 2, 4, 8, 16, 32])[rng.randint(0, 7, (count, 2))]
    rois = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    points = np.concatenate(
        [corners[:, None] + rng.randint(-8, 128, (count, 5, 2)) / 4, rng.randint(0, 3, (count, 5, 1))], axis=2
    )
    points[::2, 0, :2], points[1::2, 0, :2] = rois[::2, 2:], rois[1::2, :2]  # the far corner, and the near one
    cells, valid = keypoints_to_heat_map(torch.tensor(points, dtype=torch.float32), torch.tensor(rois), size)
    assert cells.dtype == valid.dtype == torch.int64
    kinds = set()
    for own_cells, own_valid, own_points, roi in zip(cells, valid, points, rois, strict=True):
        for cell, is_valid, point in zip(own_cells.tolist(), own_valid.tolist(), own_points, strict=True):
            expected = cell_by_hand(point, roi, size)
            kinds.add(expected is None)
            assert (cell if is_valid else None) == expected
            assert is_valid or cell == 0
    assert kinds == {True, False}


def test_cells_of_no_regions():
    cells, valid = keypoints_to_heat_map(torch.zeros(0, 17, 3), torch.zeros(0, 4), 56)
    assert cells.shape == valid.shape == (0, 17)
