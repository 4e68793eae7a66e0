"""The CUDA kernels of NMS against the CPU's: emulated, and on the device where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.ops import batched_nms, nms
from tests.ops.on_gpu import to_gpu, without_waiting
from tests.ops.test_nms import ROWS, grid_boxes, random_boxes

OP = torch.ops.mrcnn.batched_nms
STRIP = 2048  # boxes that the kernels compare at once
# 1/3 and 2/3 are quotients that many pairs of whole boxes have; float32 rounds one down and the other up.
THRESHOLDS = (0.0, 0.3, 1 / 3, 0.5, 2 / 3, 0.7, 1.0)


def some_valid(*shape, share=0.8, seed=3):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def chain(num_boxes):
    """Each box overlaps the one before it and the one behind it: every second one stays."""
    x1 = 40.0 * torch.arange(num_boxes)
    return torch.stack([x1, torch.zeros(num_boxes), x1 + 99, torch.full_like(x1, 9)], dim=1)[None]


def patchy_valid():
    """Rows with gaps of whole tiles and groups, at the front, at the end, and everywhere."""
    valid = some_valid(5, 300)
    valid[0, 5:], valid[1, :200], valid[2, 32:290], valid[3] = False, False, False, False
    return valid


def not_numbers():
    boxes = random_boxes(2, 70, seed=5)
    boxes[0, ::7, 1], boxes[1, ::5, 2], boxes[1, 1::9] = torch.nan, torch.inf, -torch.inf
    return boxes


CASES = {name: (boxes, some_valid(*boxes.shape[:2])) for name, boxes in ROWS.items()}
CASES |= {
    "chain": (chain(300), torch.ones(1, 300, dtype=torch.bool)),
    "patchy": (random_boxes(5, 300, seed=6), patchy_valid()),
    "equal": (torch.tensor([3.0, 4, 9, 12]).expand(2, 200, 4).contiguous(), some_valid(2, 200)),
    "not_numbers": (not_numbers(), some_valid(2, 70)),
    "many_rows": (random_boxes(40, 33, seed=7), some_valid(40, 33)),
    "no_rows": (torch.zeros(0, 5, 4), torch.zeros(0, 5, dtype=torch.bool)),
    "no_slots": (torch.zeros(3, 0, 4), torch.zeros(3, 0, dtype=torch.bool)),
}
# Rows of one strip and a bit, of two and three strips, with boxes that meet over their borders.
LONG = {
    "full_strip": (random_boxes(1, STRIP, seed=8, extent=400.0), some_valid(1, STRIP)),
    "one_more": (grid_boxes(2, STRIP + 1, seed=9, extent=60), some_valid(2, STRIP + 1, share=0.3)),
    "chain": (chain(STRIP + 200), torch.ones(1, STRIP + 200, dtype=torch.bool)),
    "three_strips": (random_boxes(1, 2 * STRIP + 40, seed=10, extent=300.0), some_valid(1, 2 * STRIP + 40, share=0.4)),
}


def check_narrow_decisions(suppress):
    """Of two boxes, one inside the other, with an IoU that is the threshold, or the next number above it."""
    random = np.random.RandomState(12)
    valid = torch.ones(1, 2, dtype=torch.bool)
    for outer in random.randint(1 << 21, 1 << 22, 100).astype(np.float32):  # so that every sum is exact
        inner = np.floor(outer * random.uniform(0.3, 0.9)).astype(np.float32)
        boxes = torch.tensor([[[0, 0, outer, 1], [0, 0, inner, 1]]])
        iou = inner / outer
        assert suppress(boxes, valid, float(iou), 0).tolist() == [[True, True]]
        assert suppress(boxes, valid, float(np.nextafter(iou, np.float32(0))), 0).tolist() == [[True, False]]


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def suppress(emulated, request):
    """The emulated kernels with the arguments of the op; blocks and threads run in this order."""
    library = emulated("nms")
    library.set_order(reverse=request.param)

    def call(boxes, valid, threshold, offset, rows_at_once=2):
        keep = torch.ones_like(valid)
        masks = torch.full((rows_at_once * library.mask_words(boxes.shape[1]),), -1, dtype=torch.int32)
        sizes = boxes.shape[:2]
        assert library.suppress(boxes, valid, *sizes, float(threshold), offset, rows_at_once, masks, keep) == 0
        return keep

    yield call
    library.set_order(reverse=False)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("name", CASES)
def test_emulated_kernels_equal_the_cpu_kernel(suppress, name, threshold, offset):
    arguments = (*CASES[name], threshold, offset)
    assert torch.equal(suppress(*arguments), OP(*arguments))


@pytest.mark.parametrize("name", LONG)
def test_emulated_kernels_take_long_rows_in_strips(suppress, name):
    arguments = (*LONG[name], 0.4, 1)
    assert torch.equal(suppress(*arguments), OP(*arguments))


def test_emulated_kernels_take_many_rows_in_parts(suppress):
    wanted = OP(*CASES["patchy"], 0.5, 1)
    for rows_at_once in (1, 3, 5, 9):
        assert torch.equal(suppress(*CASES["patchy"], 0.5, 1, rows_at_once), wanted)


def test_emulated_kernels_decide_by_one_unit_in_the_last_place(suppress):
    check_narrow_decisions(suppress)


def test_emulated_kernels_keep_every_second_of_a_chain(suppress):
    keep = suppress(*LONG["chain"], 0.4, 1)
    assert keep[0, ::2].all()
    assert not keep[0, 1::2].any()


def on_device(arguments):
    """Calls the op on the GPU without waiting for it; the result comes back to the CPU."""
    return without_waiting(OP, to_gpu(arguments)).cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("name", CASES)
def test_device_equals_the_cpu_kernel_without_waiting(device, name, threshold, offset):
    arguments = (*CASES[name], threshold, offset)
    assert torch.equal(on_device(arguments), OP(*arguments))


@pytest.mark.gpu
@pytest.mark.parametrize("threshold", [0.4, 0.7])
@pytest.mark.parametrize("name", LONG)
def test_device_takes_long_rows_in_strips(device, name, threshold):
    arguments = (*LONG[name], threshold, 1)
    assert torch.equal(on_device(arguments), OP(*arguments))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(60, 2000), (300, 1500), (960, 1000), (2, 12000), (1, 50000)])
def test_device_equals_the_cpu_kernel_at_full_size(device, shape):
    """Training at batch 12, more rows than fit the mask at once, the box head's classes, one level, one long list."""
    extent = 800.0 if shape[1] < 5000 else 4000.0
    arguments = (random_boxes(*shape, seed=11, extent=extent), some_valid(*shape, share=0.9), 0.6, 1)
    assert torch.equal(on_device(arguments), OP(*arguments))


@pytest.mark.gpu
def test_device_decides_by_one_unit_in_the_last_place(device):
    check_narrow_decisions(lambda *arguments: on_device(arguments))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_device_compares_other_dtypes_in_float32(device, dtype):
    boxes, valid = random_boxes(3, 200).to(dtype), some_valid(3, 200)
    keep = batched_nms(boxes.to(device), valid.to(device), iou_threshold=0.5)
    assert torch.equal(keep.cpu(), batched_nms(boxes.float(), valid, iou_threshold=0.5))


@pytest.mark.gpu
def test_device_takes_views(device):
    boxes, valid = CASES["patchy"]
    wanted = OP(boxes, valid, 0.5, 1)
    strided = boxes.transpose(0, 1).contiguous().to(device).transpose(0, 1)
    strided_valid = valid.t().contiguous().to(device).t()
    assert torch.equal(OP(strided, strided_valid, 0.5, 1).cpu(), wanted)
    between_boxes = torch.empty(boxes.numel() + 1, device=device)[1:].view(boxes.shape).copy_(boxes)
    assert torch.equal(OP(between_boxes, valid.to(device), 0.5, 1).cpu(), wanted)


@pytest.mark.gpu
def test_device_replays_in_a_graph(device):
    first, second = (torch.stack([random_boxes(2100, seed=seed, extent=300.0)] * 2) for seed in (12, 13))
    boxes, valid = first.to(device), torch.ones(2, 2100, dtype=torch.bool, device=device)
    OP(boxes, valid, 0.5, 1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        keep = OP(boxes, valid, 0.5, 1)
    boxes.copy_(second)
    valid[1, 1000:] = False
    graph.replay()
    assert torch.equal(keep.cpu(), OP(second, valid.cpu(), 0.5, 1))


@pytest.mark.gpu
def test_device_works_on_the_current_stream(device):
    boxes, valid = CASES["patchy"]
    there, valid_there = boxes.to(device), valid.to(device)
    late = torch.zeros_like(there)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        late.copy_(there)
        keep = OP(late, valid_there, 0.5, 1)
    side.synchronize()
    assert torch.equal(keep.cpu(), OP(boxes, valid, 0.5, 1))


@pytest.mark.gpu
def test_device_lists_the_indices_of_the_cpu(device):
    boxes, scores = random_boxes(900, seed=14, extent=300.0), torch.rand(900).mul(20).round()
    assert torch.equal(nms(boxes.to(device), scores.to(device), 0.4).cpu(), nms(boxes, scores, 0.4))


@pytest.mark.gpu
def test_device_opcheck_and_refusals(device):
    boxes, valid = (value.to(device) for value in CASES["random"])
    torch.library.opcheck(OP, (boxes, valid, 0.5, 1))
    with pytest.raises(ValueError, match=r"boxes must have the shape \[B, K, 4\], got \[4, 70, 3\]"):
        OP(boxes[..., :3], valid, 0.5, 1)
    with pytest.raises(ValueError, match=r"valid must have the shape \[4, 70\]"):
        OP(boxes, valid[:2], 0.5, 1)
    with pytest.raises(TypeError, match="valid must be bool"):
        OP(boxes, valid.int(), 0.5, 1)
    with pytest.raises(ValueError, match="iou_threshold must be at least 0"):
        OP(boxes, valid, -0.5, 1)
    with pytest.raises(ValueError, match="all tensors must lie on one device, got boxes on cuda:0, valid on cpu"):
        OP(boxes, valid.cpu(), 0.5, 1)
