"""The CUDA kernel of the mask targets against the CPU's: emulated, and on the device where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.ops.test_mask_targets import pack, random_problem

OP = torch.ops.mrcnn.polygon_mask_targets


def random_case(resolution, seed=0, num_boxes=12):
    instances, indices, boxes = random_problem(seed, num_boxes=num_boxes)
    indices[::5] = -1
    return *pack(instances), indices, boxes, resolution


def many_rings():
    """More rings than are filled at once, some of them with nothing inside."""
    rng = np.random.RandomState(11)
    rings = [rng.uniform(0, 8, 2) + rng.uniform(-1, 1, (rng.randint(0, 6), 2)) for _ in range(45)]
    boxes = torch.tensor([[0.0, 0, 8, 8], [2, 1, 7, 9.5], [0, 0, 8, 8]])
    return *pack([rings, [], rings[7:24]]), torch.tensor([0, 2, 1]), boxes, 28


def many_vertices():
    angles = np.linspace(0, 2 * np.pi, 1500, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (30 + 8 * np.sin(40 * angles))[:, None] + 40
    return *pack([[ring, ring / 2]]), torch.tensor([0, 0]), torch.tensor([[1.0, 2, 79, 80], [30, 30, 55, 41]]), 28


def far_vertices():
    """Vertices on the fine grid itself, where ties decide, and far outside, where edges are long."""
    rng = np.random.RandomState(12)
    instances = [[rng.randint(-40, 180, (rng.randint(3, 9), 2)) / 5] for _ in range(15)]
    instances += [[rng.randint(-9000, 9000, (rng.randint(3, 6), 2))] for _ in range(15)]
    instances += [[rng.uniform(-1e7, 1e7, (4, 2))] for _ in range(5)]
    return *pack(instances), torch.arange(35), torch.tensor([[0.0, 0, 28, 28]]).repeat(35, 1), 28


def not_numbers():
    ring = np.array([[1, 1], [np.nan, 5], [7, np.inf], [-np.inf, 2], [1e30, -1e30], [6, 3]])
    boxes = torch.tensor([[0.0, 0, 8, 8], [torch.nan, 0, 8, 8], [0, 0, torch.inf, 8], [0, 0, torch.nan, 8]])
    return *pack([[ring]]), torch.zeros(4, dtype=torch.int64), boxes, 8


def no_boxes():
    return *pack([]), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), 28


@pytest.fixture(autouse=True)
def one_thread(threads):
    """On busy cores a second thread costs more than it gives to calls so small."""
    threads(1)


CASES = {f"random_{side}": (random_case, side, side) for side in (1, 2, 7, 14, 28, 56, 64)}
# From 91 on fewer rings are filled at once, from 182 on a target takes several bands of columns.
CASES |= {f"large_{side}": (random_case, side, 3, 2) for side in (91, 181, 182, 400)}
CASES |= {maker.__name__: (maker,) for maker in (many_rings, many_vertices, far_vertices, not_numbers, no_boxes)}
CASES = {name: maker(*arguments) for name, (maker, *arguments) in CASES.items()}

# What is wrong, and which targets cannot be filled for it.
FAULTS = {
    "instance": ({"indices": [0, 2, -1]}, [1]),
    "instance_offsets": ({"instance_offsets": [0, 9, 3]}, [0, 1]),
    "negative_instance_offset": ({"instance_offsets": [-(10**9), 1, 3]}, [0]),
    "vertices": ({"ring_offsets": [0, 3, 6, 10]}, [1]),
    "descending_vertices": ({"ring_offsets": [0, 4, 2, 9]}, [1]),
}


def faulty(fault):
    """Three triangles, one in instance 0 and two in instance 1, with a fault that the CPU refuses."""
    triangles = torch.tensor([[1.0, 1], [7, 1], [4, 7]]).repeat(3, 1)
    packed = {"ring_offsets": [0, 3, 6, 9], "instance_offsets": [0, 1, 3], "indices": [0, 1, -1]} | FAULTS[fault][0]
    return triangles, *map(torch.tensor, packed.values()), torch.tensor([[0.0, 0, 8, 8]]).repeat(3, 1), 8


def check_fault(fault, targets):
    for position, target in enumerate(targets[:2]):
        if position in FAULTS[fault][1]:
            assert target.isnan().all()
        else:
            assert 0.1 < target.mean() < 0.9
    assert not targets[2].any()


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def fill(emulated, request):
    """The emulated kernel with the arguments of the op; blocks and threads run in this order."""
    library = emulated("mask_targets")
    library.set_order(reverse=request.param)

    def call(coords, ring_offsets, instance_offsets, indices, boxes, resolution):
        targets = torch.full((len(boxes), resolution, resolution), 7.0)
        polygons = coords, len(coords), ring_offsets, len(ring_offsets) - 1, instance_offsets, len(instance_offsets) - 1
        assert library.fill_targets(*polygons, indices, boxes, len(boxes), resolution, targets) == 0
        return targets

    yield call
    library.set_order(reverse=False)


@pytest.mark.parametrize("name", CASES)
def test_emulated_kernel_equals_the_cpu_kernel(fill, name):
    assert torch.equal(fill(*CASES[name]), OP(*CASES[name]))


@pytest.mark.parametrize("fault", FAULTS)
def test_emulated_kernel_gives_nan_for_what_the_cpu_refuses(fill, fault):
    with pytest.raises(ValueError, match="polygon_mask_targets"):
        OP(*faulty(fault))
    check_fault(fault, fill(*faulty(fault)))


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_device_equals_the_cpu_kernel_without_waiting(on_device, name):
    arguments = on_device(CASES[name])
    try:
        torch.cuda.set_sync_debug_mode("error")
        targets = OP(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(targets.cpu(), OP(*CASES[name]))


@pytest.mark.gpu
@pytest.mark.parametrize("fault", FAULTS)
def test_device_gives_nan_for_what_the_cpu_refuses(on_device, fault):
    check_fault(fault, OP(*on_device(faulty(fault))).cpu())


@pytest.mark.gpu
def test_device_takes_views_and_opcheck(on_device):
    coords, rings, instances, indices, boxes, resolution = on_device(CASES["random_14"])
    strided = coords.t().contiguous().t(), rings, instances, indices, boxes.repeat(1, 2)[:, :4], resolution
    assert torch.equal(OP(*strided).cpu(), OP(*CASES["random_14"]))
    torch.library.opcheck(OP, strided)


@pytest.mark.gpu
def test_device_replays_in_a_graph(on_device):
    """With fixed slots the same launch serves other boxes and instances, and empty slots."""
    coords, rings, instances, indices, boxes, resolution = on_device(CASES["random_28"])
    OP(coords, rings, instances, indices, boxes, resolution)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        targets = OP(coords, rings, instances, indices, boxes, resolution)
    indices.copy_(indices.flip(0))
    boxes.copy_(boxes.flip(0))
    graph.replay()
    assert torch.equal(targets.cpu(), OP(*CASES["random_28"]).flip(0))


@pytest.mark.gpu
def test_device_refuses_tensors_of_two_devices(on_device):
    arguments = on_device(CASES["random_14"])
    arguments[1] = arguments[1].cpu()
    with pytest.raises(ValueError, match="all tensors must lie on one device, got ring_offsets on cpu"):
        OP(*arguments)
