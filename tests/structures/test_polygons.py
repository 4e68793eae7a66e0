"""Bitmaps to polygons: pycocotools fills the rings to the same pixels, whatever the shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from maskrcnn_benchmark.structures.polygons import PackedPolygons, mask_to_polygons


def fill(rings, height, width):
    if not rings:
        return np.zeros((height, width), np.uint8)
    flat = [np.asarray(ring, np.float64).reshape(-1).tolist() for ring in rings]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))


def draw(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def components(mask):
    """Number of 4-connected components, by flooding."""
    left = {tuple(p) for p in np.argwhere(mask)}
    count = 0
    while left:
        count += 1
        front = [left.pop()]
        while front:
            r, c = front.pop()
            for neighbour in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                if neighbour in left:
                    left.remove(neighbour)
                    front.append(neighbour)
    return count


def area(ring):
    """Signed area by the shoelace formula; bridges add nothing."""
    x, y = ring.astype(np.float64).T
    return 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))


DRAWN = {
    "one pixel": draw("#"),
    "one pixel in a corner": draw("...", "..#"),
    "full": draw("###", "###"),
    "a line": draw("....", "####", "...."),
    "a hole": draw("###", "#.#", "###"),
    "a hole at a corner of a hole": draw("#####", "#.###", "##.##", "#####"),
    "two holes in one column": draw("###", "#.#", "###", "#.#", "###"),
    "nested": draw("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"),
    "diagonal": draw("#..", ".#.", "..#"),
    "antidiagonal": draw("..#", ".#.", "#.."),
    "diagonal around a hole": draw(".##.", "#..#", "#..#", ".##."),
    "checkers": draw("#.#.#", ".#.#.", "#.#.#"),
    "negative checkers": draw("#######", "#.#.#.#", "##.#.##", "#.#.#.#", "#######"),
    "open to the border": draw("##.##", "#...#", "#####"),
    "spiral": draw("#####", "....#", "###.#", "#...#", "#####"),
    "several components": draw("##..##", "##..##", "......", "#.#.#."),
}


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_shapes(name):
    mask = DRAWN[name]
    rings = mask_to_polygons(mask)
    np.testing.assert_array_equal(fill(rings, *mask.shape), mask)
    assert len(rings) == components(mask)
    assert sum(map(area, rings)) == mask.sum()
    for ring in rings:
        assert ring.dtype == np.float32
        assert ring.shape[1] == 2
        assert len(ring) >= 4


def test_a_square_has_four_vertices():
    mask = np.zeros((6, 7), bool)
    mask[1:4, 2:5] = True
    (ring,) = mask_to_polygons(mask)
    assert {tuple(v) for v in ring.tolist()} == {(2, 1), (5, 1), (5, 4), (2, 4)}
    assert len(ring) == 4


def test_empty_masks():
    assert mask_to_polygons(np.zeros((5, 5), bool)) == []
    assert mask_to_polygons(np.zeros((0, 5), bool)) == []
    with pytest.raises(ValueError, match=r"shape \[h, w\], but has \[1, 2, 3\]"):
        mask_to_polygons(np.zeros((1, 2, 3)))


# Noise of every density (nested holes, diagonal touches, borders), and the same enlarged to blocks.
@pytest.mark.parametrize("seed", range(40))
def test_random_masks(seed):
    generator = np.random.default_rng(seed)
    for _ in range(15):
        height, width = generator.integers(1, 25, size=2)
        mask = generator.random((height, width)) < generator.random()
        mask = np.kron(mask, np.ones(generator.integers(1, 4, size=2), bool))
        rings = mask_to_polygons(mask)
        np.testing.assert_array_equal(fill(rings, *mask.shape), mask)
        assert len(rings) == components(mask)
        assert sum(map(area, rings)) == mask.sum()


# A bridge that was not walked both ways alike would leave a trace once its coordinates are not whole any more.
@pytest.mark.parametrize("seed", range(10))
def test_bridges_vanish_after_scaling_and_flipping(seed):
    generator = np.random.default_rng(seed)
    mask = np.kron(generator.random((8, 8)) < 0.6, np.ones((4, 4), bool))
    for scale in ((2.0, 3.0), (-1.0, 1.0), (1.37, 0.71)):
        rings = [ring * np.float32(scale) for ring in mask_to_polygons(mask)]
        if scale[0] < 0:
            rings = [ring + np.float32((32, 0)) for ring in rings]
        height, width = round(32 * scale[1]), round(32 * abs(scale[0]))
        filled = fill(rings, height, width)
        rows = np.clip(((np.arange(height) + 0.5) / scale[1]).astype(int), 0, 31)
        columns = np.clip(((np.arange(width) + 0.5) / abs(scale[0])).astype(int), 0, 31)
        nearest = mask[np.ix_(rows, columns)]
        if scale[0] < 0:
            nearest = nearest[:, ::-1]
        if scale[1] == 0.71:  # the fill draws on a grid of fifths of a pixel; compare away from the edges only
            same = filled == nearest
            assert same.mean() > 0.97
        else:
            np.testing.assert_array_equal(filled, nearest)


def test_packing_and_unpacking():
    instances = [
        [[0, 0, 4, 0, 4, 4], np.array([[5, 5], [6, 5], [6, 6], [5, 6]])],
        [],
        [torch.tensor([1.0, 1, 2, 1, 2, 2])],
    ]
    packed = PackedPolygons.from_instances(instances)
    assert len(packed) == 3
    assert packed.coords.dtype == torch.float32
    assert packed.ring_offsets.tolist() == [0, 3, 7, 10]
    assert packed.instance_offsets.tolist() == [0, 2, 2, 3]
    assert [len(packed.instance(i)) for i in range(3)] == [2, 0, 1]
    assert packed.instance(0)[1].tolist() == [[5, 5], [6, 5], [6, 6], [5, 6]]
    assert packed.instance(2)[0].tolist() == [[1, 1], [2, 1], [2, 2]]
    nothing = PackedPolygons.from_instances([[], []])
    assert (nothing.coords.shape, nothing.ring_offsets.tolist(), len(nothing)) == ((0, 2), [0], 2)
    moved = packed.to("cpu", non_blocking=True)
    assert torch.equal(moved.coords, packed.coords)
