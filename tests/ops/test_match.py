"""Matching of boxes to ground truths against loops over the whole IoU matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.ops import match_boxes
from maskrcnn_benchmark.ops._library import plain_kernel


def random_boxes(*shape, seed=0, extent=80.0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * extent
    return torch.cat([corner, corner + torch.rand(*shape, 2, generator=generator) * extent / 2], dim=-1)


def whole_boxes(*shape, seed=0, extent=7):
    """Boxes of few whole pixels: ties between ground truths and between boxes, and inverted boxes."""
    return torch.randint(0, extent, (*shape, 4), generator=torch.Generator().manual_seed(seed)).float()


def iou_matrix(gt_boxes, boxes, offset=1):
    offset = np.float32(offset)
    matrix = np.zeros((len(gt_boxes), len(boxes)), dtype=np.float32)
    for g, first in enumerate(gt_boxes):
        for p, second in enumerate(boxes):
            width = max(min(first[2], second[2]) - max(first[0], second[0]) + offset, np.float32(0))
            height = max(min(first[3], second[3]) - max(first[1], second[1]) + offset, np.float32(0))
            areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (first, second)]
            union = areas[0] + areas[1] - width * height
            matrix[g, p] = width * height / union if union > 0 else 0
    return matrix


def match_by_loops(boxes, gt_boxes, gt_valid, high, low, allow_low_quality, offset=1):
    matches = np.full((len(gt_boxes), boxes.shape[-2]), -1)
    for image, valid in enumerate(gt_valid.numpy()):
        slots = np.flatnonzero(valid)
        own = (boxes if boxes.dim() == 2 else boxes[image]).numpy()
        if len(slots) == 0 or len(own) == 0:
            continue
        matrix = iou_matrix(gt_boxes[image].numpy()[slots], own, offset)
        for p in range(len(own)):
            best = matrix[:, p].max()
            slot = slots[int(np.flatnonzero(matrix[:, p] == best)[0])]
            if best >= np.float32(high):
                matches[image, p] = slot
            elif best >= np.float32(low):
                matches[image, p] = -2
            if allow_low_quality and (matrix[:, p] == matrix.max(axis=1)).any():
                matches[image, p] = slot
    return torch.from_numpy(matches)


def some_valid(*shape, seed=9):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.7


CASES = {
    "random": (random_boxes(2, 90), random_boxes(2, 6, seed=1), some_valid(2, 6)),
    "shared": (random_boxes(90), random_boxes(3, 5, seed=2), some_valid(3, 5)),
    "whole": (whole_boxes(150), whole_boxes(2, 12, seed=3), some_valid(2, 12)),
    "same": (random_boxes(30), random_boxes(1, 30), torch.ones(1, 30, dtype=torch.bool)),
    "apart": (random_boxes(40), random_boxes(1, 3) + 1000, torch.ones(1, 3, dtype=torch.bool)),
    "one": (random_boxes(1), random_boxes(1, 1, seed=4), torch.ones(1, 1, dtype=torch.bool)),
    "all_padding": (random_boxes(2, 20), random_boxes(2, 4), torch.zeros(2, 4, dtype=torch.bool)),
}


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("allow_low_quality", [False, True])
@pytest.mark.parametrize(("high", "low"), [(0.7, 0.3), (0.5, 0.5), (0.25, 0.0)])
@pytest.mark.parametrize("name", CASES)
def test_matches_what_the_loops_match(name, high, low, allow_low_quality, offset):
    boxes, gt_boxes, gt_valid = CASES[name]
    got = match_boxes(boxes, gt_boxes, gt_valid, high=high, low=low, allow_low_quality=allow_low_quality, offset=offset)
    assert torch.equal(got, match_by_loops(boxes, gt_boxes, gt_valid, high, low, allow_low_quality, offset))


@pytest.mark.parametrize("num_gt", [3, 500])
@pytest.mark.parametrize("kind", [random_boxes, whole_boxes])
def test_many_boxes_equal_the_plain_kernel_for_any_threads(threads, kind, num_gt):
    extent = 400 if num_gt == 500 else 60
    boxes, gt_boxes = kind(3001, extent=extent), kind(2, num_gt, seed=5, extent=extent)
    arguments = (boxes, gt_boxes, some_valid(2, num_gt), 0.7, 0.3, True, 1)
    wanted = plain_kernel("match_boxes")(*arguments)
    assert (wanted >= 0).any()
    for count in (1, 2):
        threads(count)
        assert torch.equal(torch.ops.mrcnn.match_boxes(*arguments), wanted)


def test_rows_of_anchors_equal_the_plain_kernel():
    """Boxes in the order of a feature map, where whole chunks lie apart from every ground truth."""
    ys, xs = torch.meshgrid(torch.arange(0, 320, 4.0), torch.arange(0, 480, 4.0), indexing="ij")
    centre = torch.stack([xs, ys, xs, ys], dim=-1).reshape(-1, 1, 4)
    anchors = (centre + torch.tensor([[-8.0, -16, 7, 15], [-11, -11, 11, 11], [-16, -8, 15, 7]])).reshape(-1, 4)
    gt_boxes = torch.tensor([[[31.0, 40, 60, 75], [200, 100, 260, 130], [460, 300, 479, 319], [900, 900, 910, 910]]])
    for count in (3, 4):  # with the last one, whose best IoU is 0, every anchor gets its best match back
        arguments = (anchors, gt_boxes[:, :count], torch.ones(1, count, dtype=torch.bool), 0.7, 0.3, True, 1)
        got = torch.ops.mrcnn.match_boxes(*arguments)
        assert torch.equal(got, plain_kernel("match_boxes")(*arguments))
        assert bool((got >= 0).all()) == (count == 4)


def test_thresholds_are_inclusive_below():
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 4], [0, 0, 4, 4]])  # IoU 1, 0.5, 0.25
    gt_boxes, gt_valid = boxes[:1][None], torch.ones(1, 1, dtype=torch.bool)
    matched = match_boxes(boxes, gt_boxes, gt_valid, high=0.5, low=0.25, allow_low_quality=False)
    assert matched.tolist() == [[0, 0, -2]]


def test_a_low_quality_match_gives_back_the_boxs_own_best():
    """The second box is the best of both ground truths; it stays with the one it overlaps most."""
    gt_boxes = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, 19]]])
    boxes = torch.tensor([[100.0, 100, 109, 109], [0, 0, 9, 15]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert match_boxes(boxes, gt_boxes, valid, high=0.9, low=0.3, allow_low_quality=True).tolist() == [[-1, 1]]
    assert match_boxes(boxes, gt_boxes, valid, high=0.9, low=0.3, allow_low_quality=False).tolist() == [[-1, -2]]


@pytest.mark.parametrize(
    "shapes", [((5, 4), (2, 0, 4)), ((0, 4), (2, 3, 4)), ((2, 0, 4), (2, 0, 4)), ((5, 4), (0, 3, 4))]
)
def test_no_boxes_no_ground_truth_no_images(shapes):
    gt_valid = torch.ones(shapes[1][:2], dtype=torch.bool)
    got = match_boxes(
        torch.zeros(shapes[0]), torch.zeros(shapes[1]), gt_valid, high=0.7, low=0.3, allow_low_quality=True
    )
    assert torch.equal(got, torch.full((shapes[1][0], shapes[0][-2]), -1))


def test_values_that_are_not_numbers_match_nothing():
    boxes = torch.cat([random_boxes(20), torch.full((2, 4), torch.nan), torch.full((1, 4), torch.inf)])
    gt_boxes, gt_valid = random_boxes(1, 3), torch.ones(1, 3, dtype=torch.bool)
    got = match_boxes(boxes, gt_boxes, gt_valid, high=0.5, low=0.5, allow_low_quality=True)
    assert torch.equal(
        got[:, :20], match_boxes(boxes[:20], gt_boxes, gt_valid, high=0.5, low=0.5, allow_low_quality=True)
    )
    assert (got[:, 20:] == -1).all()


def test_no_gradient_flows_and_half_precision_compares_in_float32():
    boxes, gt_boxes, gt_valid = CASES["shared"]
    half = boxes.half().requires_grad_()
    got = match_boxes(half, gt_boxes.requires_grad_(), gt_valid, high=0.5, low=0.4, allow_low_quality=True)
    assert not got.requires_grad
    wanted = match_boxes(half.float(), gt_boxes, gt_valid, high=0.5, low=0.4, allow_low_quality=True)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("name", ["random", "shared"])
def test_opcheck(name):
    boxes, gt_boxes, gt_valid = CASES[name]
    torch.library.opcheck(torch.ops.mrcnn.match_boxes, (boxes, gt_boxes.detach(), gt_valid, 0.7, 0.3, True, 1))


def test_compiles_without_a_break():
    torch._dynamo.reset()
    boxes, gt_boxes, gt_valid = CASES["shared"]

    def labels(boxes):
        return match_boxes(boxes * 2, gt_boxes * 2, gt_valid, high=0.7, low=0.3, allow_low_quality=True) >= 0

    assert torch.equal(torch.compile(labels, fullgraph=True, backend="aot_eager")(boxes), labels(boxes))


@pytest.mark.parametrize(
    ("boxes", "gt_boxes", "gt_valid", "low", "error", "message"),
    [
        (
            torch.zeros(5, 3),
            torch.zeros(1, 2, 4),
            torch.ones(1, 2).bool(),
            0.3,
            ValueError,
            "boxes must have the shape",
        ),
        (
            torch.zeros(2, 5, 4),
            torch.zeros(1, 2, 4),
            torch.ones(1, 2).bool(),
            0.3,
            ValueError,
            "boxes must have the shape",
        ),
        (torch.zeros(5, 4), torch.zeros(2, 4), torch.ones(2).bool(), 0.3, ValueError, r"gt_boxes must have the shape"),
        (
            torch.zeros(5, 4),
            torch.zeros(1, 2, 4),
            torch.ones(1, 3).bool(),
            0.3,
            ValueError,
            r"gt_valid must .* \[1, 2\]",
        ),
        (torch.zeros(5, 4), torch.zeros(1, 2, 4), torch.ones(1, 2), 0.3, TypeError, "gt_valid must be bool"),
        (torch.zeros(5, 4), torch.zeros(1, 2, 4), torch.ones(1, 2).bool(), 0.8, ValueError, "must not exceed high"),
    ],
)
def test_wrong_arguments(boxes, gt_boxes, gt_valid, low, error, message):
    with pytest.raises(error, match=message):
        match_boxes(boxes, gt_boxes, gt_valid, high=0.7, low=low, allow_low_quality=True)
    with pytest.raises(error, match=message):
        plain_kernel("match_boxes")(boxes, gt_boxes, gt_valid, 0.7, low, True, 1)
