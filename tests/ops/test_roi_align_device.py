"""ROIAlign's CUDA kernels against the plain ones, on the device. Emulated on the CPU: test_roi_align_cuda.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskrcnn_benchmark.ops import roi_align
from maskrcnn_benchmark.ops._checks import memory_format_of
from maskrcnn_benchmark.ops._roi_align_plain import roi_align_backward_reference, roi_align_reference
from tests.ops.inputs import BOX_HEAD, DTYPES, MASK_HEAD, ROI_CASES, RoiCase
from tests.ops.on_gpu import without_waiting
from tests.ops.test_roi_align import backward_arguments, op_arguments
from tests.ops.test_roi_align_cuda import CASES, LARGE, TILES, assert_near, tolerance, with_missing_sources


@pytest.fixture(params=[False, True], ids=["atomic", "in_order"])
def in_order(request):
    """Chooses the kernel of the gradient."""
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


DEVICE_CASES = tuple(
    replace(case, dtype=dtype, channels=channels, channels_last=last)
    for case in (*ROI_CASES, *LARGE, TILES)
    for dtype in DTYPES
    for channels, last in ((case.channels, False), (40, True))
)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES[::5] + DEVICE_CASES, ids=str)
def test_device_forward_equals_the_plain_kernel_without_waiting(on_device, case):
    arguments = op_arguments(case)
    result = without_waiting(torch.ops.mrcnn.roi_align, on_device(arguments))
    assert result.is_contiguous(memory_format=memory_format_of(arguments[0][0]))
    assert torch.equal(result.cpu(), roi_align_reference(*arguments))


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES[::5] + DEVICE_CASES, ids=str)
def test_device_backward_equals_the_plain_kernel_without_waiting(on_device, in_order, case):
    arguments = backward_arguments(case)
    results, again = (without_waiting(torch.ops.mrcnn.roi_align_backward, on_device(arguments)) for _ in range(2))
    assert_near([result.cpu() for result in results], roi_align_backward_reference(*arguments))
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    assert all(result.is_contiguous(memory_format=layout) for result in results)
    if in_order:
        assert all(torch.equal(one, other) for one, other in zip(results, again, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", [BOX_HEAD, MASK_HEAD], ids=str)
def test_device_at_the_published_sizes(on_device, in_order, head, dtype):
    case = replace(head, num_images=2, dtype=dtype, channels_last=True)
    arguments = on_device(op_arguments(case))
    assert torch.equal(torch.ops.mrcnn.roi_align(*arguments), roi_align_reference(*arguments))
    arguments = on_device(backward_arguments(case))
    results = torch.ops.mrcnn.roi_align_backward(*arguments)
    # Up to hundreds of terms on one pixel, in any order on both sides.
    wide = 100 if dtype in (torch.float32, torch.float64) else 10
    torch.use_deterministic_algorithms(False)  # the plain kernel would take very long
    wanted = roi_align_backward_reference(*arguments)
    for result, want in zip(results, wanted, strict=True):
        torch.testing.assert_close(result, want, rtol=wide * tolerance(dtype), atol=wide * tolerance(dtype))


@pytest.mark.gpu
def test_device_takes_what_is_not_there_for_empty_slots(on_device, in_order):
    features, rois, levels, *rest = on_device(op_arguments(CASES[1]))
    outputs = [torch.ops.mrcnn.roi_align(features, *with_missing_sources(rois, levels, flag), *rest) for flag in (1, 0)]
    assert torch.equal(*outputs)
    grad, rois, levels, *rest = on_device(backward_arguments(CASES[1]))
    grads = [
        torch.ops.mrcnn.roi_align_backward(grad, *with_missing_sources(rois, levels, flag), *rest) for flag in (1, 0)
    ]
    assert_near(*grads)


@pytest.mark.gpu
def test_device_replays_in_a_graph(on_device, in_order):
    """The same launches serve other rois."""
    features, rois, levels, *rest = on_device(op_arguments(CASES[1]))
    grad, _, _, *sizes = on_device(backward_arguments(CASES[1]))
    forward, backward = torch.ops.mrcnn.roi_align, torch.ops.mrcnn.roi_align_backward
    forward(features, rois, levels, *rest)
    backward(grad, rois, levels, *sizes)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output, grads = forward(features, rois, levels, *rest), backward(grad, rois, levels, *sizes)
    rois.copy_(rois.flip(0))
    levels.copy_(levels.flip(0))
    graph.replay()
    assert torch.equal(output, forward(features, rois, levels, *rest))
    assert_near(grads, backward(grad, rois, levels, *sizes))


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True])
def test_device_gradcheck_and_opcheck(on_device, in_order, channels_last):
    case = RoiCase("gradcheck", "empty_slots", num_rois=5, channels=2, image_size=(12, 20), scales=(1 / 4, 1 / 8))
    case = replace(case, dtype=torch.float64, channels_last=channels_last)
    features, rois, *_ = on_device(op_arguments(case))
    features = [feature.requires_grad_() for feature in features]
    assert torch.autograd.gradcheck(
        lambda *maps: roi_align(
            maps, rois, output_size=case.output_size, spatial_scales=case.scales, sampling_ratio=case.sampling_ratio
        ),
        features,
        nondet_tol=0 if in_order else 1e-12,
    )
    arguments = on_device(op_arguments(case))
    torch.library.opcheck(torch.ops.mrcnn.roi_align.default, arguments)
    torch.library.opcheck(torch.ops.mrcnn.roi_align_backward.default, on_device(backward_arguments(case)))


@pytest.mark.gpu
def test_device_refuses_tensors_of_two_devices(on_device):
    features, rois, levels, *rest = op_arguments(CASES[1])
    message = "all tensors must lie on one device, got features on cuda:0, rois on cpu"
    with pytest.raises(ValueError, match=message):
        torch.ops.mrcnn.roi_align([feature.cuda() for feature in features], rois, levels, *rest)
