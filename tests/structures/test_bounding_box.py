"""BoxList: figures by hand, and properties that hold for any boxes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

WIDTH, HEIGHT = 30, 20


def random_boxes(seed, count=20, mode="xyxy"):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, HEIGHT, (count, 2, 2), generator=generator).sort(dim=1).values
    boxes = BoxList(corners.reshape(count, 4).float(), (WIDTH, HEIGHT))
    boxes.add_field("labels", torch.arange(count) + 1)
    return boxes.convert(mode)


@pytest.mark.parametrize(
    "given", [[[1, 2, 3, 4]], np.array([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 4]]), ((1, 2, 3, 4),)]
)
def test_what_is_taken_for_boxes(given):
    boxes = BoxList(given, (WIDTH, HEIGHT))
    assert boxes.bbox.dtype == torch.float32
    assert boxes.bbox.tolist() == [[1, 2, 3, 4]]
    assert (boxes.size, boxes.mode, len(boxes)) == ((WIDTH, HEIGHT), "xyxy", 1)


def test_no_boxes():
    for nothing in ([], torch.zeros(0, 4), np.zeros((0, 4))):
        boxes = BoxList(nothing, (WIDTH, HEIGHT))
        for moved in (boxes, boxes.convert("xywh"), boxes.resize((5, 9)), boxes.transpose(0), boxes.clip_to_image()):
            assert moved.bbox.shape == (0, 4)
        assert boxes.area().shape == (0,)
        assert boxes.crop((1, 2, 5, 6)).size == (4, 4)


@pytest.mark.parametrize("shape", [(4,), (2, 5), (1, 2, 4)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match=r"shape \[n, 4\]"):
        BoxList(torch.zeros(shape), (WIDTH, HEIGHT))


def test_wrong_modes():
    with pytest.raises(ValueError, match="'xyxy' or 'xywh', not 'cxcywh'"):
        BoxList([], (WIDTH, HEIGHT), mode="cxcywh")
    with pytest.raises(ValueError, match="'xyx'"):
        BoxList([], (WIDTH, HEIGHT)).convert("xyx")


# A box holds its first and last pixel: from pixel 2 to pixel 5 are four pixels.
def test_conversion_and_area_by_hand():
    boxes = BoxList([[2, 3, 5, 9], [7, 7, 7, 7]], (WIDTH, HEIGHT))
    assert boxes.convert("xywh").bbox.tolist() == [[2, 3, 4, 7], [7, 7, 1, 1]]
    assert boxes.area().tolist() == [28, 1]
    assert boxes.convert("xywh").area().tolist() == [28, 1]
    assert boxes.convert("xywh").convert("xyxy").bbox.tolist() == boxes.bbox.tolist()
    assert BoxList([[4, 4, 0, -3]], (WIDTH, HEIGHT), mode="xywh").convert("xyxy").bbox.tolist() == [[4, 4, 4, 4]]


def test_area_counts_pixels():
    for x1, y1, x2, y2 in random_boxes(1).bbox.int().tolist():
        canvas = np.zeros((HEIGHT, WIDTH))
        canvas[y1 : y2 + 1, x1 : x2 + 1] = 1
        assert BoxList([[x1, y1, x2, y2]], (WIDTH, HEIGHT)).area().item() == canvas.sum()


@pytest.mark.parametrize("mode", ["xyxy", "xywh"])
@pytest.mark.parametrize("method", [FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM])
def test_flips_follow_the_pixels(method, mode):
    boxes = random_boxes(2, mode=mode)
    flipped = boxes.transpose(method)
    assert flipped.mode == mode
    for (x1, y1, x2, y2), found in zip(
        boxes.convert("xyxy").bbox.int().tolist(), flipped.convert("xyxy").bbox.int().tolist(), strict=True
    ):
        canvas = np.zeros((HEIGHT, WIDTH), bool)
        canvas[y1 : y2 + 1, x1 : x2 + 1] = True
        rows, columns = np.nonzero(np.flip(canvas, axis=1 - method))
        assert found == [columns.min(), rows.min(), columns.max(), rows.max()]
    assert torch.equal(flipped.transpose(method).bbox, boxes.bbox)
    assert flipped.get_field("labels").tolist() == boxes.get_field("labels").tolist()


def test_an_unknown_flip():
    with pytest.raises(ValueError, match="not 2"):
        random_boxes(0).transpose(2)


def test_resize_with_one_ratio_and_with_two():
    boxes = BoxList([[2, 3, 5, 9]], (WIDTH, HEIGHT))
    assert boxes.resize((60, 40)).bbox.tolist() == [[4, 6, 10, 18]]
    assert boxes.resize((60, 40)).size == (60, 40)
    assert boxes.resize((60, 10)).bbox.tolist() == [[4, 1.5, 10, 4.5]]
    wide = boxes.convert("xywh").resize((60, 10))
    assert wide.mode == "xywh"
    assert wide.bbox.tolist() == [[4, 1.5, 7, 4]]  # corners scaled, then last - first + 1
    assert boxes.convert("xywh").resize((60, 40)).bbox.tolist() == [[4, 6, 8, 14]]  # all four numbers scaled


def test_crop_clamps_to_the_window():
    boxes = BoxList([[2, 3, 5, 9], [20, 0, 29, 19]], (WIDTH, HEIGHT)).crop((4, 5, 24, 15))
    assert boxes.size == (20, 10)
    assert boxes.bbox.tolist() == [[0, 0, 1, 4], [16, 0, 20, 10]]


@pytest.mark.parametrize("mode", ["xyxy", "xywh"])
def test_clip_to_image(mode):
    given = torch.tensor([[-5.0, -5, 40, 40], [3, 4, 5, 6], [31, 4, 35, 9], [7, 8, 7, 12]])
    boxes = BoxList(given.clone(), (WIDTH, HEIGHT)).convert(mode)
    boxes.add_field("labels", torch.arange(4))
    clipped = boxes.clip_to_image(remove_empty=True)
    assert clipped.convert("xyxy").bbox.tolist() == [[0, 0, 29, 19], [3, 4, 5, 6]]
    assert clipped.get_field("labels").tolist() == [0, 1]
    # The BoxList itself is clamped too, as users of the original rely on, but not the tensor that it was made from.
    assert boxes.convert("xyxy").bbox[0].tolist() == [0, 0, 29, 19]
    assert len(boxes) == 4
    tensor = given.clone()
    kept = BoxList(tensor, (WIDTH, HEIGHT)).clip_to_image(remove_empty=False)
    assert len(kept) == 4
    assert torch.equal(tensor, given)


def test_fields():
    boxes = random_boxes(3)
    boxes.add_field("scores", torch.rand(20))
    assert boxes.fields() == ["labels", "scores"]
    assert boxes.has_field("scores")
    assert not boxes.has_field("masks")
    with pytest.raises(KeyError, match="masks"):
        boxes.get_field("masks")
    for wanted in ("scores", ["scores"]):
        copied = boxes.copy_with_fields(wanted)
        assert copied.fields() == ["scores"]
        assert torch.equal(copied.bbox, boxes.bbox)
    with pytest.raises(KeyError, match="masks"):
        boxes.copy_with_fields(["scores", "masks"])
    assert boxes.copy_with_fields(["scores", "masks"], skip_missing=True).fields() == ["scores"]
    copied.add_field("new", 1)
    assert not boxes.has_field("new")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (3, [3]),
        (-1, [19]),
        (slice(2, 8, 3), [2, 5]),
        ([7, 1], [7, 1]),
        (torch.tensor([4, 4, 0]), [4, 4, 0]),
        (torch.arange(20) % 9 == 0, [0, 9, 18]),
        (torch.zeros(20, dtype=torch.bool), []),
    ],
)
def test_indexing(item, expected):
    boxes = random_boxes(4)
    chosen = boxes[item]
    assert torch.equal(chosen.bbox, boxes.bbox[expected].reshape(-1, 4))
    assert chosen.get_field("labels").tolist() == [i + 1 for i in expected]
    assert (chosen.size, chosen.mode) == (boxes.size, boxes.mode)


def test_index_out_of_range_and_iteration():
    boxes = random_boxes(5, count=3)
    with pytest.raises(IndexError, match="box 3 of 3"):
        boxes[3]
    assert [b.get_field("labels").item() for b in boxes] == [1, 2, 3]


def test_masks_move_with_their_boxes():
    boxes = BoxList([[2, 3, 5, 9]], (WIDTH, HEIGHT))
    boxes.add_field("masks", SegmentationMask([[[2, 3, 6, 3, 6, 10, 2, 10]]], (WIDTH, HEIGHT)))
    for moved in (boxes.resize((60, 10)), boxes.transpose(0), boxes.crop((0, 0, 15, 15)), boxes[[0]], boxes.to("cpu")):
        masks = moved.get_field("masks")
        assert masks.size == moved.size
    assert boxes.resize((60, 10)).get_field("masks").instances.polygons[0].polygons[0][:2].tolist() == [4, 1.5]
    assert boxes.crop((1, 1, 15, 15)).get_field("masks").instances.polygons[0].polygons[0][:2].tolist() == [1, 2]


def test_pytree():
    boxes = random_boxes(6)
    leaves, spec = pytree.tree_flatten(boxes)
    assert [leaf.shape for leaf in leaves] == [(20, 4), (20,)]
    again = pytree.tree_unflatten(leaves, spec)
    assert (again.size, again.mode, again.fields()) == (boxes.size, boxes.mode, boxes.fields())
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(boxes)[0]]
    assert paths == [".bbox", ".labels"]
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec


def test_export_takes_and_returns_boxes():
    class Halve(torch.nn.Module):
        def forward(self, boxes):
            result = BoxList(boxes.bbox / 2, boxes.size)
            result.add_field("labels", boxes.get_field("labels") + 1)
            return result

    boxes = random_boxes(7)
    exported = torch.export.export(Halve(), (boxes,)).module()(boxes)
    assert isinstance(exported, BoxList)
    assert torch.equal(exported.bbox, boxes.bbox / 2)
    assert torch.equal(exported.get_field("labels"), boxes.get_field("labels") + 1)


def test_copies_and_text():
    boxes = random_boxes(8)
    for twin in (pickle.loads(pickle.dumps(boxes)), copy.deepcopy(boxes), boxes.to("cpu")):
        assert torch.equal(twin.bbox, boxes.bbox)
        assert torch.equal(twin.get_field("labels"), boxes.get_field("labels"))
    assert repr(boxes) == "BoxList(num_boxes=20, image_width=30, image_height=20, mode=xyxy)"
