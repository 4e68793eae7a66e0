"""Functions on BoxLists against counts of pixels and a plain greedy loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_iou, boxlist_nms, cat_boxlist, remove_small_boxes
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

SIZE = (24, 24)


def random_boxes(seed, count):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 24, (count, 2, 2), generator=generator).sort(dim=1).values
    boxes = BoxList(corners.reshape(count, 4).float(), SIZE)
    boxes.add_field("scores", torch.rand(count, generator=generator))
    return boxes


def canvases(boxes):
    drawn = np.zeros((len(boxes), 24, 24), bool)
    for canvas, (x1, y1, x2, y2) in zip(drawn, boxes.bbox.int().tolist(), strict=True):
        canvas[y1 : y2 + 1, x1 : x2 + 1] = True
    return drawn


def iou_by_pixels(first, second):
    a, b = canvases(first)[:, None], canvases(second)[None]
    return (a & b).sum(axis=(2, 3)) / (a | b).sum(axis=(2, 3))


@pytest.mark.parametrize("mode", ["xyxy", "xywh"])
def test_iou_counts_pixels(mode):
    first, second = random_boxes(0, 30), random_boxes(1, 20)
    found = boxlist_iou(first.convert(mode), second.convert(mode))
    np.testing.assert_allclose(found.numpy(), iou_by_pixels(first, second), rtol=1e-6)
    assert boxlist_iou(first, BoxList([], SIZE)).shape == (30, 0)
    with pytest.raises(ValueError, match="different image sizes"):
        boxlist_iou(first, BoxList([], (5, 5)))


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.9])
def test_suppression_is_the_greedy_loop(threshold):
    boxes = random_boxes(2, 60)
    iou = iou_by_pixels(boxes, boxes)
    kept = []
    for i in torch.argsort(boxes.get_field("scores"), descending=True, stable=True).tolist():
        if all(iou[i, j] <= threshold for j in kept):
            kept.append(i)
    expected = sorted(kept)
    found = boxlist_nms(boxes.convert("xywh"), threshold)
    assert found.mode == "xywh"
    assert torch.equal(found.bbox, boxes.convert("xywh").bbox[expected])
    best = sorted(kept[:4])
    assert torch.equal(boxlist_nms(boxes, threshold, max_proposals=4).bbox, boxes.bbox[best])
    assert len(boxlist_nms(boxes, threshold, max_proposals=1000)) == len(kept)


def test_suppression_off_and_under_another_score():
    boxes = random_boxes(3, 10)
    assert len(boxlist_nms(boxes, 0)) == len(boxlist_nms(boxes, -1)) == 10
    twins = BoxList([[0, 0, 9, 9], [0, 0, 9, 9]], SIZE)
    twins.add_field("objectness", torch.tensor([0.1, 0.9]))
    twins.add_field("labels", torch.tensor([1, 2]))
    assert boxlist_nms(twins, 0.5, score_field="objectness").get_field("labels").tolist() == [2]
    with pytest.raises(KeyError, match="scores"):
        boxlist_nms(twins, 0.5)


@pytest.mark.parametrize("mode", ["xyxy", "xywh"])
def test_small_boxes(mode):
    boxes = BoxList([[0, 0, 3, 3], [0, 0, 2, 9], [0, 0, 9, 2]], SIZE).convert(mode)
    kept = remove_small_boxes(boxes, 4)
    assert kept.convert("xyxy").bbox.tolist() == [[0, 0, 3, 3]]
    assert kept.mode == mode


def test_joining():
    first, second = random_boxes(4, 3), random_boxes(5, 2)
    for boxes in (first, second):
        rings = [[[x, y, x + 5, y, x, y + 5]] for x, y in boxes.bbox[:, :2].tolist()]
        boxes.add_field("masks", SegmentationMask(rings, SIZE))
        boxes.add_field("names", list("abc")[: len(boxes)])
    joined = cat_boxlist([first, second])
    assert torch.equal(joined.bbox, torch.cat((first.bbox, second.bbox)))
    assert torch.equal(joined.get_field("scores")[3:], second.get_field("scores"))
    assert joined.get_field("names") == ["a", "b", "c", "a", "b"]
    assert torch.equal(joined.get_field("masks")[3:].get_mask_tensor(), second.get_field("masks").get_mask_tensor())
    assert len(cat_boxlist([first])) == 3


def test_what_cannot_be_joined():
    boxes = random_boxes(6, 3)
    for other in (BoxList([], (5, 5)), boxes.convert("xywh"), boxes.copy_with_fields([])):
        with pytest.raises(ValueError, match="must agree in size, mode and fields"):
            cat_boxlist([boxes, other])
    with pytest.raises(ValueError, match="at least one"):
        cat_boxlist([])
    with pytest.raises(TypeError, match="list of BoxLists"):
        cat_boxlist([boxes, boxes.bbox])
