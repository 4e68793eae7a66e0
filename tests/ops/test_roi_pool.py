"""ROIPool against loops written from the definition, and through autograd, opcheck, compile and export."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.ops import roi_pool
from maskrcnn_benchmark.ops.roi_pool import roi_pool_backward_reference, roi_pool_reference
from tests.ops.inputs import ROI_CASES, ROI_CASES_ALL, RoiCase


def round_half_away(value):
    return math.floor(value + 0.5) if value >= 0 else -math.floor(-value + 0.5)


def bin_ranges(start, end, bins, extent, real):
    start, end = round_half_away(float(start)), round_half_away(float(end))
    size = real(real(max(end - start + 1, 1)) / real(bins))
    ranges = []
    for index in range(bins):
        low = math.floor(real(real(index) * size)) + start
        high = math.ceil(real(real(index + 1) * size)) + start
        ranges.append((min(max(low, 0), extent), min(max(high, 0), extent)))
    return ranges


def pool_by_loops(case, features, rois):
    real = np.float64 if case.dtype == torch.float64 else np.float32
    values = features.to(torch.float64 if case.dtype == torch.float64 else torch.float32).numpy()
    height, width = values.shape[2:]
    output = np.zeros((len(rois), case.channels, *case.output_size), values.dtype)
    argmax = np.full(output.shape, -1, np.int32)
    for index, roi in enumerate(rois.numpy()):
        if not np.isfinite(roi).all() or roi[0] < 0:
            continue
        x1, y1, x2, y2 = (real(value * real(case.scales[0])) for value in roi[1:])
        for py, (top, bottom) in enumerate(bin_ranges(y1, y2, case.output_size[0], height, real)):
            for px, (left, right) in enumerate(bin_ranges(x1, x2, case.output_size[1], width, real)):
                for channel in range(case.channels):
                    best = -math.inf
                    for y in range(top, bottom):
                        for x in range(left, right):
                            value = values[int(roi[0]), channel, y, x]
                            if value > best:
                                best = value
                                output[index, channel, py, px] = value
                                argmax[index, channel, py, px] = y * width + x
    return torch.from_numpy(output).to(case.dtype), torch.from_numpy(argmax)


def coarse(case, **changes):
    """The case on one small map, so that the loops end soon."""
    return replace(case, scales=(1 / 8,), channels=min(case.channels, 3), **changes)


def op_arguments(case, requires_grad=False):
    features = case.features()[0].requires_grad_(requires_grad)
    return features, case.make_rois(), list(case.output_size), case.scales[0]


def backward_arguments(case):
    features, rois, bins, scale = op_arguments(case)
    _, argmax = roi_pool_reference(features, rois, bins, scale)
    grad = torch.randn(argmax.shape, generator=torch.Generator().manual_seed(2)).to(case.dtype)
    return grad, argmax, rois, case.num_images, *case.map_sizes()[0], scale, case.channels_last


CASES_ALL = tuple(coarse(case) for case in ROI_CASES_ALL if case.sampling_ratio != 0)
CASES = tuple(
    coarse(case, channels_last=last) for case in ROI_CASES if case.sampling_ratio != 0 for last in (False, True)
)


@pytest.mark.parametrize("case", CASES_ALL, ids=str)
def test_forward_equals_loops_bit_for_bit(case):
    features, rois, bins, scale = op_arguments(case)
    expected, expected_argmax = pool_by_loops(case, features, rois)
    for function in (torch.ops.mrcnn.roi_pool, roi_pool_reference):
        output, argmax = function(features, rois, bins, scale)
        assert output.dtype == case.dtype
        assert torch.equal(output, expected)
        assert torch.equal(argmax, expected_argmax)
    result = roi_pool(features, rois, output_size=case.output_size, spatial_scale=scale)
    assert torch.equal(result, expected)


@pytest.mark.parametrize("case", CASES_ALL, ids=str)
def test_backward_equals_loops(case):
    arguments = backward_arguments(case)
    grad, argmax, rois = (value.to(torch.float64).numpy() for value in arguments[:3])
    height, width = case.map_sizes()[0]
    expected = np.zeros((case.num_images, case.channels, height * width))
    for roi, channel, py, px in np.argwhere(argmax >= 0):
        place = int(argmax[roi, channel, py, px])
        expected[int(rois[roi, 0]), channel, place] += grad[roi, channel, py, px]
    expected = torch.from_numpy(expected).view(case.num_images, case.channels, height, width)
    tolerance = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[case.dtype]
    for backward in (torch.ops.mrcnn.roi_pool_backward, roi_pool_backward_reference):
        result = backward(*arguments)
        assert result.dtype == case.dtype
        torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradcheck(channels_last):
    case = RoiCase(
        "gradcheck",
        "empty_slots",
        num_rois=5,
        channels=2,
        image_size=(16, 24),
        scales=(1 / 4,),
        output_size=(2, 3),
        dtype=torch.float64,
        channels_last=channels_last,
    )
    features, rois, bins, scale = op_arguments(case, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda value: roi_pool(value, rois, output_size=tuple(bins), spatial_scale=scale), (features,)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_opcheck(case):
    torch.library.opcheck(torch.ops.mrcnn.roi_pool.default, op_arguments(case, requires_grad=True))
    torch.library.opcheck(torch.ops.mrcnn.roi_pool_backward.default, backward_arguments(case))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_one_and_two_threads_agree_bit_for_bit(threads, channels_last, dtype):
    case = RoiCase(
        "threads", "proposals", num_rois=80, channels=70, scales=(1 / 8,), dtype=dtype, channels_last=channels_last
    )
    backward = backward_arguments(case)
    results = []
    for count in (1, 2):
        threads(count)
        output, argmax = torch.ops.mrcnn.roi_pool(*op_arguments(case))
        results.append((output, argmax, torch.ops.mrcnn.roi_pool_backward(*backward)))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("function", [torch.ops.mrcnn.roi_pool, roi_pool_reference], ids=["op", "plain"])
def test_nan_and_minus_infinity(function):
    features = torch.full((1, 3, 4, 4), -math.inf)
    features[0, 1, 2, 2] = math.nan
    features[0, 2, 3, 1] = 5.0
    output, argmax = function(features, torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0]]), [1, 1], 1.0)
    assert output[0, 0, 0, 0] == -math.inf
    assert output[0, 1, 0, 0].isnan()
    assert output[0, 2, 0, 0] == 5
    assert argmax.flatten().tolist() == [0, 10, 13]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_the_dtype_of_the_features(dtype):
    case = replace(CASES[0], dtype=dtype)
    features, rois, bins, scale = op_arguments(case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = roi_pool(features, rois, output_size=tuple(bins), spatial_scale=scale)
    assert result.dtype == dtype
    assert torch.equal(result, roi_pool(features, rois, output_size=tuple(bins), spatial_scale=scale))


def pool(features, rois):
    return roi_pool(features, rois, output_size=(3, 3), spatial_scale=0.25)


def test_compile_without_graph_breaks(check_compile):
    check_compile(pool)


def test_export_with_free_sizes(check_export):
    check_export(pool)


def test_a_roi_whose_size_overflows_reads_nothing_outside():
    rois = torch.tensor([[0.0, -3e38, -3e38, 3e38, 3e38], [0, -3e38, 1, 3e38, 5]])
    arguments = torch.randn(1, 2, 8, 8), rois, [2, 2], 1.0
    for result, expected in zip(torch.ops.mrcnn.roi_pool(*arguments), roi_pool_reference(*arguments), strict=True):
        assert torch.equal(result, expected)


@pytest.mark.parametrize("function", [torch.ops.mrcnn.roi_pool, roi_pool_reference], ids=["op", "plain"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.zeros(5, 9, 9)}, ValueError, r"features must have the shape \[N, C, H, W\]"),
        ({"features": torch.zeros(2, 3, 9, 9).long()}, TypeError, "float32"),
        ({"rois": torch.zeros(3, 4)}, ValueError, r"rois must have the shape \[R, 5\], got \[3, 4\]"),
        ({"rois": torch.zeros(3, 5).double()}, TypeError, "rois must be"),
        ({"rois": torch.full((3, 5), 7.0)}, ValueError, "roi 0 belongs to image 7, but the features hold 2"),
        ({"bins": [7, 0]}, ValueError, r"output_size must be two positive numbers, got \[7, 0\]"),
    ],
)
def test_wrong_arguments_are_named(function, change, error, message):
    names = ("features", "rois", "bins", "scale")
    arguments = dict(zip(names, op_arguments(CASES[0]), strict=True)) | change
    with pytest.raises(error, match=message):
        function(*arguments.values())
