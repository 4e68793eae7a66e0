"""Non-maximum suppression against loops written from the definition, on random, tied, inverted and empty rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.ops import batched_nms, nms
from maskrcnn_benchmark.ops._library import plain_kernel


def random_boxes(*shape, seed=0, extent=60.0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * extent
    return torch.cat([corner, corner + torch.rand(*shape, 2, generator=generator) * extent / 2], dim=-1)


def grid_boxes(*shape, seed=0, extent=8):
    """Boxes of few whole pixels: many pairs have equal IoUs, many of them just the threshold, and some are inverted."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, extent, (*shape, 4), generator=generator).float()


def iou_by_hand(first, second, offset):
    one, offset = np.float32(1) * 0, np.float32(offset)
    width = max(min(first[2], second[2]) - max(first[0], second[0]) + offset, one)
    height = max(min(first[3], second[3]) - max(first[1], second[1]) + offset, one)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (first, second)]
    union = areas[0] + areas[1] - width * height
    return width * height / union if union > 0 else one


def keep_by_loops(boxes, valid, threshold, offset=1):
    boxes, keep = boxes.numpy(), np.zeros(valid.shape, dtype=bool)
    for row in range(boxes.shape[0]):
        for slot in range(boxes.shape[1]):
            better = [boxes[row, other] for other in range(slot) if keep[row, other]]
            keep[row, slot] = valid[row, slot] and not any(
                iou_by_hand(other, boxes[row, slot], offset) > np.float32(threshold) for other in better
            )
    return torch.from_numpy(keep)


ROWS = {
    "random": random_boxes(4, 70),
    "dense": random_boxes(2, 90, seed=1, extent=20.0),
    "grid": grid_boxes(3, 60),
    "one_slot": random_boxes(3, 1),
    "points": torch.zeros(2, 20, 4),
    "far": random_boxes(1, 40, seed=2) * 1e6,
}


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("name", ROWS)
def test_keeps_what_the_loops_keep(name, threshold, offset):
    boxes = ROWS[name]
    valid = torch.rand(boxes.shape[:2], generator=torch.Generator().manual_seed(3)) < 0.8
    wanted = keep_by_loops(boxes, valid, threshold, offset)
    assert torch.equal(batched_nms(boxes, valid, iou_threshold=threshold, offset=offset), wanted)


@pytest.mark.parametrize("threads_used", [1, 2])
@pytest.mark.parametrize("name", ["random", "grid"])
def test_long_rows_equal_the_plain_kernel(threads, threads_used, name):
    boxes = random_boxes(6, 700, extent=300.0) if name == "random" else grid_boxes(6, 700, extent=40)
    valid = torch.rand(6, 700, generator=torch.Generator().manual_seed(4)) < torch.linspace(0, 1, 6)[:, None]
    threads(threads_used)
    keep = batched_nms(boxes, valid, iou_threshold=0.5)
    assert torch.equal(keep, plain_kernel("batched_nms")(boxes, valid, 0.5, 1))
    assert keep[5].any()
    assert not keep[0].any()
    assert not (keep & ~valid).any()


def test_only_an_iou_above_the_threshold_suppresses():
    boxes = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, 4]]])  # IoU 50 / 100
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert batched_nms(boxes, valid, iou_threshold=0.5).tolist() == [[True, True]]
    assert batched_nms(boxes, valid, iou_threshold=0.4999).tolist() == [[True, False]]


def test_a_suppressed_box_suppresses_nothing():
    boxes = torch.tensor([[[0.0, 0, 99, 9], [40, 0, 139, 9], [80, 0, 179, 9]]])
    keep = batched_nms(boxes, torch.ones(1, 3, dtype=torch.bool), iou_threshold=0.4)
    assert keep.tolist() == [[True, False, True]]


def test_values_that_are_not_numbers_suppress_nothing():
    boxes = random_boxes(1, 40).index_fill(1, torch.tensor([0, 7, 21]), torch.nan)
    valid = torch.ones(1, 40, dtype=torch.bool)
    keep = batched_nms(boxes, valid, iou_threshold=0.3)
    usable = boxes.isfinite().all(dim=-1)
    assert keep[~usable].all()
    assert torch.equal(keep & usable, batched_nms(boxes, usable, iou_threshold=0.3))


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_no_rows_or_no_slots(shape):
    keep = batched_nms(torch.zeros(*shape, 4), torch.zeros(shape, dtype=torch.bool), iou_threshold=0.5)
    assert keep.shape == shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_compare_in_float32(dtype):
    boxes, valid = random_boxes(2, 50).to(dtype), torch.ones(2, 50, dtype=torch.bool)
    wanted = batched_nms(boxes.float(), valid, iou_threshold=0.5)
    assert torch.equal(batched_nms(boxes, valid, iou_threshold=0.5), wanted)


def test_strided_input():
    boxes, valid = random_boxes(50, 3), torch.ones(50, 3, dtype=torch.bool)
    keep = batched_nms(boxes.transpose(0, 1), valid.t(), iou_threshold=0.4)
    assert torch.equal(keep, keep_by_loops(boxes.transpose(0, 1).contiguous(), valid.t(), 0.4))


def test_nms_returns_ascending_indices_and_breaks_ties_by_index():
    boxes = random_boxes(80, extent=40.0)
    scores = torch.randint(0, 5, (80,), generator=torch.Generator().manual_seed(5)) / 5
    order = sorted(range(80), key=lambda index: (-scores[index], index))
    keep = keep_by_loops(boxes[order][None], torch.ones(1, 80, dtype=torch.bool), 0.4)[0]
    wanted = sorted(index for index, kept in zip(order, keep.tolist(), strict=True) if kept)
    assert nms(boxes, scores, 0.4).tolist() == wanted
    assert nms(boxes[:0], scores[:0], 0.4).shape == (0,)
    assert nms(boxes, scores, 0.4).dtype == torch.int64


def test_no_gradient_flows():
    boxes, scores = random_boxes(9).requires_grad_(), torch.rand(9, requires_grad=True)
    assert not nms(boxes, scores, 0.5).requires_grad
    assert not batched_nms(boxes[None], torch.ones(1, 9, dtype=torch.bool), iou_threshold=0.5).requires_grad


def test_opcheck():
    valid = torch.rand(4, 70) < 0.5
    torch.library.opcheck(torch.ops.mrcnn.batched_nms, (ROWS["random"], valid, 0.5, 1))


def test_compiles_without_a_break():
    torch._dynamo.reset()
    boxes, scores = random_boxes(40), torch.rand(40)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(lambda b, s: nms(b * 1.5, s, 0.5) + 1, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(boxes, scores), nms(boxes * 1.5, scores, 0.5) + 1)


@pytest.mark.parametrize(
    ("boxes", "valid", "threshold", "error", "message"),
    [
        (torch.zeros(2, 3), torch.ones(2, 3).bool(), 0.5, ValueError, r"boxes must have the shape \[B, K, 4\]"),
        (torch.zeros(2, 3, 4), torch.ones(2, 4).bool(), 0.5, ValueError, r"valid must have the shape \[2, 3\]"),
        (torch.zeros(2, 3, 4), torch.ones(2, 3), 0.5, TypeError, "valid must be bool"),
        (torch.zeros(2, 3, 4), torch.ones(2, 3).bool(), -0.1, ValueError, "iou_threshold must be at least 0"),
    ],
)
def test_wrong_arguments(boxes, valid, threshold, error, message):
    with pytest.raises(error, match=message):
        batched_nms(boxes, valid, iou_threshold=threshold)
    with pytest.raises(error, match=message):
        plain_kernel("batched_nms")(boxes, valid, threshold, 1)


def test_nms_with_scores_that_do_not_fit():
    with pytest.raises(ValueError, match=r"nms: scores must have the shape \[3\], got \[4\]"):
        nms(torch.zeros(3, 4), torch.zeros(4), 0.5)
