"""The CUDA kernels of matching against the CPU's: emulated, and on the device where there is one."""

from __future__ import annotations

import itertools

import pytest
import torch

from maskrcnn_benchmark.ops import match_boxes
from tests.ops.on_gpu import to_gpu, without_waiting
from tests.ops.test_match import CASES, random_boxes, some_valid, whole_boxes

OP = torch.ops.mrcnn.match_boxes
THRESHOLDS = ((0.7, 0.3), (0.5, 0.5), (0.25, 0.0))
RULES = tuple(itertools.product(THRESHOLDS, (False, True), (0, 1)))  # (high, low), low-quality matches, offset


def all_valid(*shape):
    return torch.ones(shape, dtype=torch.bool)


def anchors(height, width):
    """[A, 4] in the order of a feature map, so that most ground truths lie apart from most warps."""
    ys, xs = torch.meshgrid(torch.arange(0, height, 4.0), torch.arange(0, width, 4.0), indexing="ij")
    shapes = torch.tensor([[-23.0, -11, 22, 11], [-16, -16, 15, 15], [-11, -23, 11, 22]])
    return (torch.stack([xs, ys, xs, ys], dim=-1).reshape(-1, 1, 4) + shapes).reshape(-1, 4)


def one_each():
    """Boxes side by side, and ground truths that meet a single one of them."""
    x1 = 4.0 * torch.arange(600)
    boxes = torch.stack([x1, torch.zeros(600), x1 + 2, torch.full_like(x1, 2)], dim=1)
    chosen = torch.randperm(600, generator=torch.Generator().manual_seed(20))[:150]
    return boxes, boxes[chosen][None], all_valid(1, 150)


def not_numbers():
    boxes = random_boxes(3, 700, seed=21)
    boxes[0, ::3, 1], boxes[1, ::5, 2], boxes[1, 1::7] = torch.nan, torch.inf, -torch.inf
    boxes[2, :256] = torch.nan  # whole warps
    gt_boxes = random_boxes(3, 9, seed=22)
    gt_boxes[0, 3, 0], gt_boxes[2, 1] = torch.nan, torch.inf
    return boxes, gt_boxes, all_valid(3, 9)


def late_valid():
    """Ground truths that begin after the first 128 slots, in one image after none at all."""
    gt_valid = some_valid(3, 300)
    gt_valid[0, :200] = False
    gt_valid[1] = False
    return random_boxes(600, seed=23), random_boxes(3, 300, seed=24), gt_valid


GROUND_TRUTHS = torch.tensor([[[31.0, 40, 60, 75], [100, 60, 160, 90], [151, 83, 175, 99], [900, 900, 910, 910]]])

ALL_CASES = CASES | {
    "many_ties": (whole_boxes(1100), whole_boxes(2, 150, seed=25), some_valid(2, 150)),
    "chunks": (random_boxes(2, 1025, seed=26), random_boxes(2, 129, seed=27), some_valid(2, 129)),
    "anchors": (anchors(100, 176), GROUND_TRUTHS[:, :3], all_valid(1, 3)),
    "anchors_and_nothing": (anchors(100, 176), GROUND_TRUTHS, all_valid(1, 4)),
    "one_each": one_each(),
    "late_valid": late_valid(),
    # An IoU of 0 everywhere: the low-quality match of every box is the first ground truth that counts.
    "apart_and_late": (random_boxes(40), random_boxes(1, 3) + 1000, torch.tensor([[False, True, True]])),
    "not_numbers": not_numbers(),
    "no_truths": (random_boxes(5), torch.zeros(2, 0, 4), all_valid(2, 0)),
    "no_boxes": (torch.zeros(2, 0, 4), random_boxes(2, 3), all_valid(2, 3)),
    "no_images": (random_boxes(5), torch.zeros(0, 3, 4), all_valid(0, 3)),
}


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def match(emulated, request):
    """The emulated kernels with the arguments of the op; blocks and threads run in this order."""
    library = emulated("match")
    library.set_order(reverse=request.param)

    def call(boxes, gt_boxes, gt_valid, high, low, allow_low_quality, offset):
        num_images, num_truths = gt_valid.shape
        num_boxes = boxes.shape[-2]
        matches = torch.full((num_images, num_boxes), 77)
        num_chunks = -(-num_boxes // library.chunk_size())
        shapes = (num_images, num_boxes), (num_images, num_chunks, num_truths), (num_images, num_truths)
        scratch = [torch.full(shape, -1, dtype=torch.int32) if allow_low_quality else None for shape in shapes]
        stride = num_boxes * 4 if boxes.dim() == 3 else 0
        sizes = num_images, num_boxes, num_truths
        rule = float(high), float(low), offset
        assert library.match_boxes(boxes, stride, gt_boxes, gt_valid, *sizes, *rule, matches, *scratch) == 0
        return matches

    yield call
    library.set_order(reverse=False)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", ALL_CASES)
def test_emulated_kernels_equal_the_cpu_kernel(match, name, rule):
    (high, low), allow_low_quality, offset = rule
    arguments = (*ALL_CASES[name], high, low, allow_low_quality, offset)
    assert torch.equal(match(*arguments), OP(*arguments))


def test_every_anchor_gets_its_best_match_back_where_one_ground_truth_has_none(match):
    """Its best IoU is 0, and that is what most anchors have."""
    got = match(*ALL_CASES["anchors_and_nothing"], 0.7, 0.3, True, 1)
    assert (got >= 0).all()
    assert set(got.flatten().tolist()) == {0, 1, 2}


def on_device(arguments):
    """Calls the op on the GPU without waiting for it; the result comes back to the CPU."""
    return without_waiting(OP, to_gpu(arguments)).cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", ALL_CASES)
def test_device_equals_the_cpu_kernel_without_waiting(device, name, rule):
    (high, low), allow_low_quality, offset = rule
    arguments = (*ALL_CASES[name], high, low, allow_low_quality, offset)
    assert torch.equal(on_device(arguments), OP(*arguments))


@pytest.mark.gpu
@pytest.mark.parametrize(("num_images", "num_truths"), [(12, 20), (2, 100), (1, 600)])
def test_device_equals_the_cpu_kernel_at_full_size(device, num_images, num_truths):
    gt_boxes = random_boxes(num_images, num_truths, seed=28, extent=800.0)
    arguments = (anchors(800, 1344), gt_boxes, some_valid(num_images, num_truths), 0.7, 0.3, True, 1)
    wanted = OP(*arguments)
    for _ in range(3):
        assert torch.equal(on_device(arguments), wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_device_compares_other_dtypes_in_float32(device, dtype):
    boxes, gt_boxes, gt_valid = CASES["random"]
    rule = {"high": 0.5, "low": 0.4, "allow_low_quality": True}
    got = match_boxes(boxes.to(device, dtype), gt_boxes.to(device), gt_valid.to(device), **rule)
    assert torch.equal(got.cpu(), match_boxes(boxes.to(dtype).float(), gt_boxes, gt_valid, **rule))


@pytest.mark.gpu
def test_device_takes_views(device):
    boxes, gt_boxes, gt_valid = ALL_CASES["chunks"]
    wanted = OP(boxes, gt_boxes, gt_valid, 0.7, 0.3, True, 1)
    strided = [value.transpose(0, 1).contiguous().to(device).transpose(0, 1) for value in (boxes, gt_boxes, gt_valid)]
    assert torch.equal(OP(*strided, 0.7, 0.3, True, 1).cpu(), wanted)
    between = [
        torch.empty(value.numel() + 1, device=device)[1:].view(value.shape).copy_(value) for value in (boxes, gt_boxes)
    ]
    assert torch.equal(OP(*between, gt_valid.to(device), 0.7, 0.3, True, 1).cpu(), wanted)


@pytest.mark.gpu
def test_device_replays_in_a_graph(device):
    boxes, gt_boxes, gt_valid = (value.to(device) for value in ALL_CASES["many_ties"])
    OP(boxes, gt_boxes, gt_valid, 0.7, 0.3, True, 1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        matches = OP(boxes, gt_boxes, gt_valid, 0.7, 0.3, True, 1)
    for seed in (31, 32):
        new_boxes, new_valid = random_boxes(2, 150, seed=seed), some_valid(2, 150, seed=seed)
        gt_boxes.copy_(new_boxes)
        gt_valid.copy_(new_valid)
        graph.replay()
        assert torch.equal(matches.cpu(), OP(ALL_CASES["many_ties"][0], new_boxes, new_valid, 0.7, 0.3, True, 1))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["random", "shared"])
def test_device_opcheck(device, name):
    boxes, gt_boxes, gt_valid = (value.to(device) for value in CASES[name])
    torch.library.opcheck(OP, (boxes, gt_boxes, gt_valid, 0.7, 0.3, True, 1))


@pytest.mark.gpu
def test_device_refuses_what_the_cpu_refuses(device):
    boxes, gt_boxes, gt_valid = (value.to(device) for value in CASES["shared"])
    rule = (0.7, 0.3, True, 1)
    with pytest.raises(ValueError, match="boxes must have the shape"):
        OP(boxes[:, :3], gt_boxes, gt_valid, *rule)
    with pytest.raises(ValueError, match=r"gt_valid must have the shape \[3, 5\]"):
        OP(boxes, gt_boxes, gt_valid[:2], *rule)
    with pytest.raises(TypeError, match="gt_valid must be bool"):
        OP(boxes, gt_boxes, gt_valid.int(), *rule)
    with pytest.raises(ValueError, match="must not exceed high"):
        OP(boxes, gt_boxes, gt_valid, 0.3, 0.7, True, 1)
    with pytest.raises(ValueError, match="all tensors must lie on one device, got boxes on cuda:0, gt_boxes on cpu"):
        OP(boxes, gt_boxes.cpu(), gt_valid, *rule)
