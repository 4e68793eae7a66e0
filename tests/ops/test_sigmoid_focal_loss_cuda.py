"""The CUDA kernels of the focal loss against the CPU's: emulated, and on the device where there is one."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.ops.sigmoid_focal_loss import sigmoid_focal_loss
from tests.ops.inputs import DTYPES
from tests.ops.on_gpu import to_gpu, without_waiting
from tests.ops.test_sigmoid_focal_loss import ALPHA, BACKWARD, CASES, FORWARD, TOLERANCE, random_case

GRAD = 0.37
# With a rest that fills no vector, in the last chunk and in the only one.
ALL_CASES = CASES | {"rest": random_case(117, 83), "crumb": random_case(1, 3), "chunk_and_one": random_case(8193, 1)}
RULES = ((2.0, DTYPES), (1.5, DTYPES[:1]))
CALLS = [(name, gamma, dtype) for name in ALL_CASES for gamma, dtypes in RULES for dtype in dtypes]


def arguments_of(name, gamma, dtype):
    logits, targets = ALL_CASES[name]
    return logits.to(dtype), targets, gamma, ALPHA


def sum_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


class Emulated:
    """The launchers of the emulated library, called as the ops are."""

    def __init__(self, library):
        self.library = library
        self.chunk = library.chunk_size()

    def call(self, name, logits, targets, gamma, alpha, *tensors):
        function = getattr(self.library, f"{name}_{str(logits.dtype).removeprefix('torch.')}")
        assert function(logits, targets, *logits.shape, gamma, alpha, *tensors) == 0

    def forward(self, logits, *rest):
        sums = torch.full((-(-logits.numel() // self.chunk),), 7.0, dtype=torch.float64)
        output = torch.full((), 7.0, dtype=sum_dtype(logits.dtype))
        self.call("forward", logits, *rest, sums, output)
        return output

    def backward(self, grad, logits, *rest):
        gradient = torch.full_like(logits, 7.0)
        self.call("backward", logits, *rest, grad, gradient)
        return gradient


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def kernels(emulated, request):
    """Blocks and threads run in this order."""
    library = emulated("sigmoid_focal_loss")
    library.set_order(reverse=request.param)
    yield Emulated(library)
    library.set_order(reverse=False)


def assert_close(result, wanted):
    """As equal as sums in another order are."""
    torch.testing.assert_close(result, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "gamma", "dtype"), CALLS, ids=str)
def test_emulated_kernels_equal_the_cpu_kernels(kernels, without_extension, name, gamma, dtype):
    arguments = arguments_of(name, gamma, dtype)
    assert_close(kernels.forward(*arguments), FORWARD(*arguments))
    grad = torch.tensor(GRAD, dtype=sum_dtype(dtype))
    # the compiled kernels share their arithmetic; the plain one goes through PyTorch's functions
    tolerance = {"rtol": TOLERANCE[dtype], "atol": 1e-7} if without_extension else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(kernels.backward(grad, *arguments), BACKWARD(grad, *arguments), **tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "gamma", "dtype"), CALLS, ids=str)
def test_device_equals_the_cpu_kernels_without_waiting(device, name, gamma, dtype):
    arguments = arguments_of(name, gamma, dtype)
    assert_close(without_waiting(FORWARD, to_gpu(arguments)).cpu(), FORWARD(*arguments))
    grad = torch.tensor(GRAD, dtype=sum_dtype(dtype))
    result = without_waiting(BACKWARD, to_gpu((grad, *arguments))).cpu()
    torch.testing.assert_close(result, BACKWARD(grad, *arguments), rtol=TOLERANCE[dtype], atol=1e-7)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_device_repeats_itself_bit_for_bit_at_full_size(device, dtype):
    logits, targets = random_case(201600, 80, dtype=dtype)
    arguments = (logits, targets, 2.0, ALPHA)
    results = [without_waiting(FORWARD, to_gpu(arguments)).cpu() for _ in range(3)]
    assert_close(results[0], FORWARD(*arguments))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.gpu
def test_device_takes_views(device):
    logits, targets = random_case(60, 9)
    wanted = FORWARD(logits, targets, 2.0, ALPHA)
    odd = torch.empty(logits.numel() + 1, device=device)[1:].view(logits.shape).copy_(logits)
    for view in (odd, logits.t().contiguous().to(device).t()):
        leaf = view.detach().requires_grad_()
        loss = sigmoid_focal_loss(leaf, targets.int().to(device), gamma=2.0, alpha=ALPHA)
        loss.backward()
        assert_close(loss.detach().cpu(), wanted)
        gradient = BACKWARD(torch.tensor(1.0), logits, targets, 2.0, ALPHA)
        torch.testing.assert_close(leaf.grad.cpu(), gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.gpu
def test_device_opcheck(device):
    logits, targets = (value.to(device) for value in random_case(11, 4))
    torch.library.opcheck(FORWARD.default, (logits.requires_grad_(), targets, 2.0, ALPHA))
    grad = torch.tensor(GRAD, device=device)
    torch.library.opcheck(BACKWARD.default, (grad, logits.detach(), targets, 2.0, ALPHA))


@pytest.mark.gpu
def test_device_refuses_what_the_cpu_refuses(device):
    logits, targets = (value.to(device) for value in random_case(6, 3))
    with pytest.raises(ValueError, match=r"targets must have the shape \[6\]"):
        FORWARD(logits, targets[:5], 2.0, ALPHA)
    with pytest.raises(ValueError, match="all tensors must lie on one device, got logits on cuda:0, targets on cpu"):
        FORWARD(logits, targets.cpu(), 2.0, ALPHA)
