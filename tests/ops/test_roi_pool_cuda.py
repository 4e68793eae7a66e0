"""ROIPool's CUDA kernels against the plain ones: emulated, and on the device where there is one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskrcnn_benchmark.ops import roi_pool
from maskrcnn_benchmark.ops.roi_pool import roi_pool_backward_reference, roi_pool_reference
from tests.ops.inputs import DTYPES, ROI_CASES, RoiCase
from tests.ops.on_gpu import without_waiting
from tests.ops.test_roi_pool import backward_arguments, coarse, op_arguments

# Channels that fill whole vectors, and in float32 some that do not. Each case with two dtypes in turn.
CHANNELS = dict(zip(DTYPES, (3, 6, 16, 8), strict=True))
COARSE = tuple(
    replace(coarse(case, channels_last=last), num_rois=min(case.num_rois, 10))
    for case in ROI_CASES
    if case.sampling_ratio != 0
    for last in (False, True)
)
CASES = tuple(
    replace(case, channels=CHANNELS[dtype], dtype=dtype)
    for position, case in enumerate(COARSE)
    for dtype in DTYPES[position // 2 % 2 :: 2]
)
# More rois, and more channels, than a block has threads.
CROWD = RoiCase("crowd", "proposals", num_rois=300, channels=2, image_size=(24, 32), scales=(1 / 8,), num_images=3)
WIDE = RoiCase("wide", "proposals", num_rois=2, channels=300, image_size=(16, 16), scales=(1 / 8,), output_size=(2, 2))
LARGE = tuple(replace(case, channels_last=last) for case in (CROWD, WIDE) for last in (False, True))

HUGE = 3e38
# Of a missing image, then of corners whose distance overflows.
ODD_ROIS = torch.tensor([[1.0, 0, 0, 9, 9], [0, -HUGE, -HUGE, HUGE, HUGE], [0, -HUGE, 1, HUGE, 5], [-1, 0, 0, 9, 9]])


@pytest.fixture(autouse=True)
def one_thread(threads):
    """The plain kernels make thousands of small calls: on busy cores a second thread costs more than it gives."""
    threads(1)


def layout_of(channels_last):
    return torch.channels_last if channels_last else torch.contiguous_format


def assert_same(results, wanted):
    for result, want in zip(results, wanted, strict=True):
        torch.testing.assert_close(result, want, rtol=0, atol=0, equal_nan=True)


def backward_tolerance(dtype):
    """Sums of a few terms in another order."""
    return {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype]


class Emulated:
    """The launchers of the emulated library, called as the ops are."""

    def __init__(self, library):
        self.library = library

    def call(self, name, dtype, rois, sizes, scale, *tensors):
        function = getattr(self.library, f"{name}_{str(dtype).removeprefix('torch.')}")
        assert function(rois.contiguous(), torch.tensor(sizes), scale, *tensors) == 0

    def forward(self, features, rois, bins, scale, channels_last):
        shape = (len(rois), features.shape[1], *bins)
        output = torch.full(shape, 7, dtype=features.dtype).contiguous(memory_format=layout_of(channels_last))
        argmax = torch.full(shape, 7, dtype=torch.int32).contiguous(memory_format=layout_of(channels_last))
        sizes = (len(rois), *features.shape, *bins, channels_last)
        self.call("forward", features.dtype, rois, sizes, scale, features, output, argmax)
        return output, argmax

    def backward(self, name, grad, argmax, rois, num_images, height, width, scale, channels_last):
        shape = (num_images, grad.shape[1], height, width)
        atomic = name == "backward_atomic"
        result = torch.full(shape, 0.0 if atomic else 7.0, dtype=rois.dtype if atomic else grad.dtype)
        result = result.contiguous(memory_format=layout_of(channels_last))
        grad, argmax = (value.contiguous(memory_format=layout_of(channels_last)) for value in (grad, argmax))
        sizes = (len(rois), *shape, *grad.shape[2:], channels_last)
        self.call(name, grad.dtype, rois, sizes, scale, grad, argmax, result)
        return result.to(grad.dtype)


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def kernels(emulated, request):
    """Blocks and threads run in this order."""
    library = emulated("roi_pool")
    library.set_order(reverse=request.param)
    yield Emulated(library)
    library.set_order(reverse=False)


@pytest.mark.parametrize("case", CASES + LARGE, ids=str)
def test_emulated_forward_equals_the_plain_kernel(kernels, case):
    arguments = op_arguments(case)
    assert_same(kernels.forward(*arguments, case.channels_last), roi_pool_reference(*arguments))


@pytest.mark.parametrize("case", CASES + LARGE, ids=str)
def test_emulated_atomic_backward_equals_the_plain_kernel(kernels, case):
    arguments = backward_arguments(case)
    tolerance = backward_tolerance(case.dtype)
    result = kernels.backward("backward_atomic", *arguments)
    torch.testing.assert_close(result, roi_pool_backward_reference(*arguments), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", [case for case in CASES + LARGE if case.channels_last], ids=str)
def test_emulated_backward_in_order_equals_the_cpu_bit_for_bit(kernels, case):
    arguments = backward_arguments(case)
    assert torch.equal(kernels.backward("backward_in_order", *arguments), torch.ops.mrcnn.roi_pool_backward(*arguments))


def odd_calls(channels_last):
    features = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    features[0, 1, 2, 2] = torch.nan
    return features.contiguous(memory_format=layout_of(channels_last)), ODD_ROIS, [2, 2], 1.0


def check_odd(output, argmax, channels_last):
    features, rois, bins, scale = odd_calls(channels_last)
    assert output[0].isnan().all()
    assert (argmax[0] == -1).all()
    assert_same((output[1:], argmax[1:]), roi_pool_reference(features, rois[1:], bins, scale))
    assert output[1, 1, 0, 0].isnan()


@pytest.mark.parametrize("channels_last", [False, True])
def test_emulated_kernels_with_odd_rois(kernels, channels_last):
    features, rois, bins, scale = odd_calls(channels_last)
    output, argmax = kernels.forward(features, rois, bins, scale, channels_last)
    check_odd(output, argmax, channels_last)
    names = ["backward_atomic", "backward_in_order"] if channels_last else ["backward_atomic"]
    for name in names:  # even when told of a place, a roi of a missing image adds nothing
        grad = torch.ones_like(output)
        result = kernels.backward(name, grad, argmax.clamp(min=0), rois, 1, 8, 8, scale, channels_last)
        only = kernels.backward(name, grad[1:], argmax[1:].clamp(min=0), rois[1:], 1, 8, 8, scale, channels_last)
        assert torch.equal(result, only)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


DEVICE_CASES = tuple(
    replace(case, channels=channels, dtype=dtype) for case in COARSE for dtype, channels in CHANNELS.items()
)
DEVICE_CASES += tuple(replace(case, dtype=dtype) for case in LARGE for dtype in DTYPES)


@pytest.mark.gpu
@pytest.mark.parametrize("case", DEVICE_CASES, ids=str)
def test_device_forward_equals_the_plain_kernel_without_waiting(on_device, case):
    arguments = op_arguments(case)
    results = without_waiting(torch.ops.mrcnn.roi_pool, on_device(arguments))
    assert all(result.is_contiguous(memory_format=layout_of(case.channels_last)) for result in results)
    assert_same([result.cpu() for result in results], roi_pool_reference(*arguments))


@pytest.mark.gpu
@pytest.mark.parametrize("case", DEVICE_CASES, ids=str)
def test_device_backward_equals_the_plain_kernel_without_waiting(on_device, case):
    arguments = backward_arguments(case)
    result = without_waiting(torch.ops.mrcnn.roi_pool_backward, on_device(arguments)).cpu()
    tolerance = backward_tolerance(case.dtype)
    torch.testing.assert_close(result, roi_pool_backward_reference(*arguments), rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("case", DEVICE_CASES, ids=str)
def test_device_deterministic_backward_equals_the_cpu_bit_for_bit(on_device, deterministic, case):
    arguments = backward_arguments(case)
    result = without_waiting(torch.ops.mrcnn.roi_pool_backward, on_device(arguments))
    assert result.is_contiguous(memory_format=layout_of(case.channels_last))
    assert torch.equal(result.cpu(), torch.ops.mrcnn.roi_pool_backward(*arguments))


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True])
def test_device_with_odd_rois(on_device, channels_last):
    results = torch.ops.mrcnn.roi_pool(*on_device(odd_calls(channels_last)))
    check_odd(*(result.cpu() for result in results), channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True])
def test_device_gradcheck_and_opcheck(on_device, deterministic, channels_last):
    case = replace(CASES[0], dtype=torch.float64, channels=2, num_rois=4, channels_last=channels_last)
    features, rois, bins, scale = on_device(op_arguments(case))
    features.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda value: roi_pool(value, rois, output_size=tuple(bins), spatial_scale=scale), (features,)
    )
    torch.library.opcheck(torch.ops.mrcnn.roi_pool.default, (features, rois, bins, scale))
    torch.library.opcheck(torch.ops.mrcnn.roi_pool_backward.default, on_device(backward_arguments(case)))


@pytest.mark.gpu
def test_device_refuses_tensors_of_two_devices(on_device):
    features, rois, bins, scale = op_arguments(CASES[0])
    with pytest.raises(ValueError, match="all tensors must lie on one device, got features on cuda:0, rois on cpu"):
        torch.ops.mrcnn.roi_pool(features.cuda(), rois, bins, scale)
