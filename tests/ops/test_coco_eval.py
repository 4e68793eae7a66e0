"""The ops of COCO's evaluation against pycocotools and against their plain kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.library import opcheck

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.ops._library import plain_kernel

HEIGHT, WIDTH = 37, 53


def polygon(random, vertices):
    """A ring that leaves the image now and then, crosses itself, and has whole, half and repeated coordinates."""
    points = random.rand(vertices, 2) * (WIDTH + 20, HEIGHT + 20) - 10
    kind = random.randint(4)
    if kind == 0:
        points = points.round()
    elif kind == 1:
        points = (points * 2).round() / 2
    elif kind == 2:
        points[random.randint(vertices)] = points[0]
    return points


def pack(instances):
    """Arguments of rasterize_polygons for lists of rings."""
    rings = [ring for instance in instances for ring in instance]
    coords = np.concatenate([np.zeros((0, 2)), *rings])
    ring_offsets = np.cumsum([0, *map(len, rings)])
    instance_offsets = np.cumsum([0, *map(len, instances)])
    sizes = np.array([[HEIGHT, WIDTH]] * len(instances)).reshape(-1, 2)
    return tuple(
        torch.from_numpy(np.ascontiguousarray(array)) for array in (coords, ring_offsets, instance_offsets, sizes)
    )


def random_instances(seed, count):
    random = np.random.RandomState(seed)
    return [[polygon(random, random.randint(3, 12)) for _ in range(random.randint(1, 4))] for _ in range(count)]


def random_texts(seed, count):
    """(text, offsets, pycocotools' masks) of blobs, some empty, some full."""
    random = np.random.RandomState(seed)
    images = []
    for _ in range(count):
        image = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        y, x = random.randint(HEIGHT), random.randint(WIDTH)
        image[y : y + random.randint(30), x : x + random.randint(40)] = 1
        image &= (random.rand(HEIGHT, WIDTH) < random.choice([0.5, 1.0, 1.0])).astype(np.uint8)
        images.append(np.ones_like(image) if random.rand() < 0.05 else image)
    rles = [coco_mask.encode(np.asfortranarray(image)) for image in images]
    texts = [rle["counts"] for rle in rles]
    text = torch.from_numpy(np.frombuffer(b"".join(texts), dtype=np.uint8).copy())
    return text, torch.tensor([0, *map(len, texts)]).cumsum(0), rles


def random_groups(seed, num_groups, most):
    return torch.from_numpy(np.cumsum([0, *np.random.RandomState(seed).randint(0, most, num_groups)]))


@pytest.mark.parametrize("op", [torch.ops.mrcnn.rasterize_polygons, plain_kernel("rasterize_polygons")])
def test_polygons_fill_the_pixels_that_pycocotools_fills(op):
    instances = random_instances(0, 400)
    text, offsets = (tensor.numpy() for tensor in op(*pack(instances)))
    for index, rings in enumerate(instances):
        expected = coco_mask.merge(coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], HEIGHT, WIDTH))
        found = {"size": [HEIGHT, WIDTH], "counts": text[offsets[index] : offsets[index + 1]].tobytes()}
        assert np.array_equal(coco_mask.decode(found), coco_mask.decode(expected)), index


def test_a_mask_without_rings_is_empty():
    text, offsets = ops.rasterize_polygons(*pack([[], [np.zeros((0, 2))]]))
    assert ops.rle_areas(text, offsets).tolist() == [0, 0]
    assert offsets.tolist() == [0, len(text) // 2, len(text)]


@pytest.mark.parametrize("op", [torch.ops.mrcnn.rle_areas, plain_kernel("rle_areas")])
def test_areas(op):
    text, offsets, rles = random_texts(1, 200)
    assert op(text, offsets).tolist() == coco_mask.area(rles).tolist()
    assert op(text[:0], offsets[:1]).tolist() == []


@pytest.mark.parametrize("op", [torch.ops.mrcnn.rle_overlaps, plain_kernel("rle_overlaps")])
def test_overlaps_are_those_of_pycocotools(op):
    dt_groups, gt_groups = random_groups(2, 40, 6), random_groups(3, 40, 5)
    dt_text, dt_offsets, detections = random_texts(4, int(dt_groups[-1]))
    gt_text, gt_offsets, objects = random_texts(5, int(gt_groups[-1]))
    crowd = (torch.rand(len(objects), generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)
    expected = []
    for n in range(40):
        d, g = slice(*dt_groups[n : n + 2].tolist()), slice(*gt_groups[n : n + 2].tolist())
        if detections[d] and objects[g]:
            expected += coco_mask.iou(detections[d], objects[g], crowd[g].tolist()).ravel().tolist()
    found = op(dt_text, dt_offsets, gt_text, gt_offsets, dt_groups, gt_groups, crowd)
    assert found.tolist() == expected
    assert sum(value > 0 for value in expected) > 50


def matching(seed, num_groups=60):
    """Arguments of match_detections, with ties, full overlaps, crowds and objects that are ignored."""
    random = np.random.RandomState(seed)
    dt_groups, gt_groups = random_groups(seed + 1, num_groups, 7), random_groups(seed + 2, num_groups, 6)
    num_pairs = int(dt_groups.diff() @ gt_groups.diff())
    ious = random.choice([0.0, 0.3, 0.5, 0.55, 0.75, 0.9, 1.0], num_pairs)
    ignored = (random.rand(3, int(gt_groups[-1])) < 0.3).astype(np.uint8)
    crowd = (random.rand(int(gt_groups[-1])) < 0.2).astype(np.uint8)
    ignored |= crowd
    arrays = (ious, ignored, crowd, np.array([0.5, 0.75, 1.0]))
    ious, ignored, crowd, thresholds = map(torch.from_numpy, arrays)
    return ious, dt_groups, gt_groups, ignored, crowd, thresholds


def test_compiled_and_plain_matching_agree():
    # Both are compared with pycocotools as a whole in tests/evaluation/test_fast_coco.py.
    for seed in range(10):
        arguments = matching(seed)
        found = torch.ops.mrcnn.match_detections(*arguments)
        assert torch.equal(found, plain_kernel("match_detections")(*arguments))
        assert (found >= 0).any()


def test_a_match_by_hand():
    # Two detections, three objects; the second object is ignored, the third a crowd.
    ious = torch.tensor([[0.6, 0.9, 0.0], [0.7, 0.5, 0.8]], dtype=torch.float64).flatten()
    groups = {"dt_groups": torch.tensor([0, 2]), "gt_groups": torch.tensor([0, 3])}
    ignored, crowd = torch.tensor([[0, 1, 1]], dtype=torch.uint8), torch.tensor([0, 0, 1], dtype=torch.uint8)
    thresholds = torch.tensor([0.5, 0.65], dtype=torch.float64)
    found = ops.match_detections(ious, **groups, gt_ignored=ignored, gt_crowd=crowd, thresholds=thresholds)
    # At 0.5 the first takes the object that counts, though it covers the ignored one better, and the second is left
    # with the best of the others. At 0.65 only the second covers it.
    assert found.tolist() == [[[0, 2], [1, 0]]]


def test_results_do_not_depend_on_threads():
    arguments = matching(3, 300)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(torch.ops.mrcnn.match_detections(*arguments))
    torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_opcheck():
    text, offsets, _ = random_texts(6, 12)
    groups, crowd = torch.tensor([0, 4, 4, 12]), torch.zeros(12, dtype=torch.uint8)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    opcheck(torch.ops.mrcnn.rasterize_polygons, pack(random_instances(7, 4)), test_utils=checks)
    opcheck(torch.ops.mrcnn.rle_areas, (text, offsets), test_utils=checks)
    opcheck(torch.ops.mrcnn.rle_overlaps, (text, offsets, text, offsets, groups, groups, crowd), test_utils=checks)
    opcheck(torch.ops.mrcnn.match_detections, matching(0, 5), test_utils=checks)


@pytest.mark.parametrize("plain", [False, True])
def test_arguments_that_do_not_fit(plain):
    def op(name):
        return plain_kernel(name) if plain else getattr(torch.ops.mrcnn, name)

    text, offsets, _ = random_texts(8, 3)
    with pytest.raises(ValueError, match="offsets must ascend from 0 to"):
        op("rle_areas")(text, offsets[:-1])
    with pytest.raises(TypeError, match="text must be"):
        op("rle_areas")(text.float(), offsets)
    coords, rings, instances, sizes = pack(random_instances(9, 2))
    with pytest.raises(ValueError, match="instance_offsets must ascend"):
        op("rasterize_polygons")(coords, rings, instances + 1, sizes)
    with pytest.raises(ValueError, match="fewer than 2\\^32 pixels"):
        op("rasterize_polygons")(coords, rings, instances, sizes * 10000)
    ious, *rest = matching(0, 5)
    with pytest.raises(ValueError, match="ious must have the shape"):
        op("match_detections")(ious[1:], *rest)
