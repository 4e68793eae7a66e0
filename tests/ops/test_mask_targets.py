"""Mask targets from polygons against pycocotools and against the outline drawn point by point."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from maskrcnn_benchmark.ops import polygon_mask_targets
from maskrcnn_benchmark.ops._library import plain_kernel


def pack(instances):
    """Lists of rings, [V, 2] each, as coords, ring_offsets and instance_offsets."""
    rings = [np.asarray(ring, dtype=np.float32).reshape(-1, 2) for instance in instances for ring in instance]
    coords = np.concatenate(rings) if rings else np.zeros((0, 2), dtype=np.float32)
    ring_offsets = np.cumsum([0, *map(len, rings)])
    instance_offsets = np.cumsum([0, *map(len, instances)])
    return torch.from_numpy(coords), torch.from_numpy(ring_offsets), torch.from_numpy(instance_offsets)


def moved_and_scaled(ring, box, resolution):
    ring, box = np.asarray(ring, dtype=np.float32).reshape(-1, 2), box.numpy()
    sides = np.maximum(box[2:] - box[:2], np.float32(1))
    return (ring - box[:2]) * (np.float32(resolution) / sides)


def target_by_coco(rings, box, resolution):
    scaled = [moved_and_scaled(ring, box, resolution).ravel().tolist() for ring in rings if len(ring) >= 3]
    if not scaled:
        return torch.zeros(resolution, resolution)
    encoded = [coco_mask.frPyObjects([ring], resolution, resolution)[0] for ring in scaled]
    return torch.from_numpy(coco_mask.decode(coco_mask.merge(encoded)).astype(np.float32))


def target_by_points(rings, box, resolution):
    """Every point of the outline on the grid five times finer; crossings before a pixel, odd or even, decide it."""
    union = np.zeros(resolution * resolution, dtype=bool)
    for ring in rings:
        fine = [[int(5 * float(v) + 0.5) for v in vertex] for vertex in moved_and_scaled(ring, box, resolution)]
        points = []
        for (x1, y1), (x2, y2) in zip(fine, fine[1:] + fine[:1], strict=True):
            along_x = abs(x2 - x1) >= abs(y2 - y1)
            swap = x1 > x2 if along_x else y1 > y2
            (xs, ys), (xe, ye) = ((x2, y2), (x1, y1)) if swap else ((x1, y1), (x2, y2))
            steps = xe - xs if along_x else ye - ys
            slope = ((ye - ys) if along_x else (xe - xs)) / steps if steps else 0.0
            line = [
                (xs + t, int(ys + slope * t + 0.5)) if along_x else (int(xs + slope * t + 0.5), ys + t)
                for t in range(steps + 1)
            ]
            points += line[::-1] if swap else line
        parity = np.zeros(resolution * resolution + 1, dtype=int)
        for (x1, y1), (x2, y2) in pairwise(points):
            column, remainder = divmod(min(x1, x2) - 2, 5)
            if x1 != x2 and remainder == 0 and 0 <= column < resolution:
                parity[column * resolution + min(max(math.ceil((min(y1, y2) - 2) / 5), 0), resolution)] += 1
        union |= np.cumsum(parity)[:-1] % 2 == 1
    return torch.from_numpy(union.reshape(resolution, resolution).T.astype(np.float32))


def blob(rng, vertices, extent=100.0):
    """A star-shaped ring, or a tangle when few vertices are drawn at random."""
    if rng.rand() < 0.4:
        return rng.uniform(-0.2 * extent, 1.2 * extent, (vertices, 2))
    angles = np.sort(rng.uniform(0, 2 * np.pi, vertices))
    radius = rng.uniform(0.1, 0.6, vertices) * extent
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None] + extent / 2


def random_problem(seed, num_instances=12, num_boxes=40):
    rng = np.random.RandomState(seed)
    instances = []
    for _ in range(num_instances):
        rings = [blob(rng, rng.randint(3, 40)) for _ in range(rng.randint(1, 4))]
        style = rng.randint(4)
        instances.append(
            [np.round(ring * (1, 1, 2, 4)[style]) / (1, 1, 2, 4)[style] if style else ring for ring in rings]
        )
    corner = rng.uniform(-20, 90, (num_boxes, 2))
    size = np.exp(rng.uniform(0, 4.7, (num_boxes, 2)))
    boxes = np.concatenate([corner, corner + size], axis=1)
    boxes[::3] = np.round(boxes[::3])
    boxes[::10, 2:] = boxes[::10, :2] - 5  # inverted: sides of one pixel
    boxes[5::10] = boxes[5::10, [0, 1, 0, 1]]
    return instances, torch.from_numpy(rng.randint(0, num_instances, num_boxes)), torch.from_numpy(boxes).float()


def targets(instances, indices, boxes, resolution):
    return polygon_mask_targets(*pack(instances), indices, boxes, resolution=resolution)


@pytest.mark.parametrize("resolution", [1, 2, 7, 14, 28, 56, 64])
def test_equals_pycocotools(resolution):
    for seed in range(6):
        instances, indices, boxes = random_problem(seed)
        got = targets(instances, indices, boxes, resolution)
        for position, instance in enumerate(indices.tolist()):
            wanted = target_by_coco(instances[instance], boxes[position], resolution)
            assert torch.equal(got[position], wanted), (seed, position)


def test_equals_the_outline_drawn_point_by_point():
    instances, indices, boxes = random_problem(20, num_boxes=10)
    got = targets(instances, indices, boxes, 14)
    for position, instance in enumerate(indices.tolist()):
        assert torch.equal(got[position], target_by_points(instances[instance], boxes[position], 14)), position
    assert 0.05 < got.mean() < 0.95


def test_whole_fine_points_and_far_vertices():
    """Vertices on the fine grid itself, where ties decide, and far outside, where edges are long."""
    rng = np.random.RandomState(1)
    instances = [[rng.randint(-40, 180, (rng.randint(3, 9), 2)) / 5] for _ in range(150)]
    instances += [[rng.randint(-9000, 9000, (rng.randint(3, 6), 2))] for _ in range(150)]
    boxes = torch.tensor([[0.0, 0, 28, 28]]).expand(len(instances), 4)
    got = targets(instances, torch.arange(len(instances)), boxes, 28)
    for position, rings in enumerate(instances):
        assert torch.equal(got[position], target_by_coco(rings, boxes[position], 28)), position


def test_rectangle_hole_and_overlap():
    square = [[0, 0], [8, 0], [8, 8], [0, 8]]
    inner = [[2, 2], [4, 2], [4, 4], [2, 4]]
    keyhole = [[0, 0], [8, 0], [8, 8], [0, 8], [0, 0], [2, 2], [2, 4], [4, 4], [4, 2], [2, 2]]
    box = torch.tensor([[0.0, 0, 8, 8]])
    assert targets([[square]], torch.tensor([0]), box, 8).sum() == 64
    assert targets([[square, inner]], torch.tensor([0]), box, 8).sum() == 64  # rings unite
    assert targets([[keyhole]], torch.tensor([0]), box, 8).sum() < 64  # one ring cancels itself


def test_rings_that_enclose_nothing():
    point, line, empty = [[3, 3]], [[1, 1], [6, 5]], np.zeros((0, 2))
    triangle = [[1, 1], [7, 2], [3, 7]]
    boxes = torch.tensor([[0.0, 0, 8, 8]]).expand(5, 4)
    got = targets([[point], [line], [empty], [], [point, triangle, line]], torch.arange(5), boxes, 8)
    assert got[:4].sum() == 0
    assert torch.equal(got[4], target_by_coco([triangle], boxes[4], 8))


def test_negative_index_is_an_empty_target():
    instances, _, boxes = random_problem(3, num_boxes=4)
    indices = torch.tensor([1, -1, 2, -1])
    got = targets(instances, indices, boxes, 14)
    assert got[1::2].sum() == 0
    assert torch.equal(got[::2], targets(instances, indices[::2], boxes[::2], 14))


def test_no_boxes_and_no_polygons():
    nothing = torch.zeros(0, dtype=torch.int64)
    assert targets([], nothing, torch.zeros(0, 4), 28).shape == (0, 28, 28)
    assert targets([[]], torch.tensor([0]), torch.zeros(1, 4), 28).sum() == 0


def test_values_that_are_not_numbers_do_no_harm():
    ring = np.array([[1, 1], [np.nan, 5], [7, np.inf], [-np.inf, 2], [1e30, -1e30]])
    boxes = torch.tensor([[0.0, 0, 8, 8], [torch.nan, 0, 8, 8], [0, 0, torch.inf, 8]])
    got = torch.ops.mrcnn.polygon_mask_targets(*pack([[ring]]), torch.zeros(3, dtype=torch.int64), boxes, 8)
    assert got.shape == (3, 8, 8)
    plain = plain_kernel("polygon_mask_targets")(*pack([[ring]]), torch.zeros(3, dtype=torch.int64), boxes, 8)
    assert torch.equal(got, plain)


def test_five_hundred_instances_for_any_threads(threads):
    instances, indices, boxes = random_problem(7, num_instances=500, num_boxes=500)
    results = []
    for count in (1, 2):
        threads(count)
        results.append(targets(instances, indices, boxes, 28))
    assert torch.equal(*results)
    assert torch.equal(results[0], plain_kernel("polygon_mask_targets")(*pack(instances), indices, boxes, 28))


def test_no_gradient_flows():
    instances, indices, boxes = random_problem(8)
    coords, *offsets = pack(instances)
    got = polygon_mask_targets(coords.requires_grad_(), *offsets, indices, boxes.requires_grad_(), resolution=28)
    assert not got.requires_grad
    assert got.dtype == torch.float32


def test_opcheck():
    instances, indices, boxes = random_problem(9)
    torch.library.opcheck(torch.ops.mrcnn.polygon_mask_targets, (*pack(instances), indices, boxes, 14))


def test_compiles_without_a_break():
    torch._dynamo.reset()
    instances, indices, boxes = random_problem(10)
    packed = pack(instances)

    def mean(boxes):
        return polygon_mask_targets(*packed, indices, boxes + 1, resolution=14).mean(dim=0)

    assert torch.equal(torch.compile(mean, fullgraph=True, backend="aot_eager")(boxes), mean(boxes))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"coords": torch.zeros(4, 3)}, ValueError, r"coords must have the shape \[V, 2\]"),
        ({"ring_offsets": torch.tensor([0, 9])}, ValueError, "ring_offsets must ascend from 0 to at most 4"),
        ({"ring_offsets": torch.tensor([0.0, 4])}, TypeError, "ring_offsets must be int64"),
        ({"ring_offsets": torch.zeros(0, dtype=torch.int64)}, ValueError, "must be a vector that starts with 0"),
        ({"instance_offsets": torch.tensor([0, 1, 0])}, ValueError, "instance_offsets must ascend from 0 to at most 1"),
        ({"instance_indices": torch.tensor([1])}, ValueError, "instance index 1 is out of range for 1 instances"),
        ({"boxes": torch.zeros(2, 4)}, ValueError, r"boxes must have the shape \[1, 4\]"),
        ({"resolution": 0}, ValueError, "resolution must be at least 1"),
    ],
)
def test_wrong_arguments(changes, error, message):
    arguments = {
        "coords": torch.rand(4, 2),
        "ring_offsets": torch.tensor([0, 4]),
        "instance_offsets": torch.tensor([0, 1]),
        "instance_indices": torch.tensor([0]),
        "boxes": torch.zeros(1, 4),
        "resolution": 28,
    } | changes
    with pytest.raises(error, match=message):
        polygon_mask_targets(**arguments)
    with pytest.raises(error, match=message):
        plain_kernel("polygon_mask_targets")(**arguments)
