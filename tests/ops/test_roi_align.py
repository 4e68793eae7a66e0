"""ROIAlign against loops written from the definition, and through autograd, opcheck, compile and export."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.ops import roi_align, roi_levels
from maskrcnn_benchmark.ops._roi_align_plain import roi_align_backward_reference, roi_align_reference
from tests.ops.inputs import PYRAMID, ROI_CASES, ROI_CASES_ALL, RoiCase


def level_by_hand(roi, scales):
    area = (float(roi[3]) - float(roi[1]) + 1) * (float(roi[4]) - float(roi[2]) + 1)
    finest, coarsest = -math.log2(scales[0]), -math.log2(scales[-1])
    if not area >= 0:
        return 0
    level = math.floor(4 + math.log2(math.sqrt(area) / 224 + 1e-6)) if area < math.inf else coarsest
    return int(min(max(level, finest), coarsest) - finest)


def axis_samples(start, end, bins, sampling_ratio, extent, real):
    """Per bin a list of samples (low pixel, high pixel, weight low, weight high), None for one outside the map."""
    size = max(real(end - start), real(1))
    bin_size = real(size / real(bins))
    grid = sampling_ratio or math.ceil(bin_size)
    samples = []
    for index in range(bins):
        row = []
        for step in range(grid):
            at = real(real(start + real(real(index) * bin_size)) + real(real(real(step + 0.5) * bin_size) / real(grid)))
            if at < -1 or at > extent:
                row.append(None)
                continue
            at = max(at, real(0))
            low = int(at)
            if low >= extent - 1:
                row.append((extent - 1, extent - 1, real(1), real(0)))
            else:
                high = real(at - real(low))
                row.append((low, low + 1, real(real(1) - high), high))
        samples.append(row)
    return samples


def walk(case, rois):
    """Yields (roi, level, image, py, px, count, samples) with samples a list of four (y, x, weight) each."""
    real = np.float64 if case.dtype == torch.float64 else np.float32
    sizes = case.map_sizes()
    for index, roi in enumerate(rois.numpy()):
        if not np.isfinite(roi).all() or roi[0] < 0:
            continue
        level = level_by_hand(roi, case.scales) if len(case.scales) > 1 else 0
        x1, y1, x2, y2 = (real(value * real(case.scales[level])) for value in roi[1:])
        ys = axis_samples(y1, y2, case.output_size[0], case.sampling_ratio, sizes[level][0], real)
        xs = axis_samples(x1, x2, case.output_size[1], case.sampling_ratio, sizes[level][1], real)
        for py, row in enumerate(ys):
            for px, column in enumerate(xs):
                samples = [
                    [
                        (y[0], x[0], y[2] * x[2]),
                        (y[0], x[1], y[2] * x[3]),
                        (y[1], x[0], y[3] * x[2]),
                        (y[1], x[1], y[3] * x[3]),
                    ]
                    for y in row
                    for x in column
                    if y is not None and x is not None
                ]
                yield index, level, int(roi[0]), py, px, real(len(row) * len(column)), samples


def forward_by_loops(case, features, rois):
    wide = torch.float64 if case.dtype == torch.float64 else torch.float32
    maps = [feature.to(wide).numpy() for feature in features]
    output = np.zeros((len(rois), case.channels, *case.output_size), maps[0].dtype)
    for index, level, image, py, px, count, samples in walk(case, rois):
        total = np.zeros(case.channels, output.dtype)
        for corners in samples:
            v1, v2, v3, v4 = (weight * maps[level][image, :, y, x] for y, x, weight in corners)
            total = total + (((v1 + v2) + v3) + v4)
        output[index, :, py, px] = total / count
    return torch.from_numpy(output).to(case.dtype)


def backward_by_loops(case, grad, rois):
    grads = [np.zeros((case.num_images, case.channels, *size)) for size in case.map_sizes()]
    grad = grad.double().numpy()
    for index, level, image, py, px, count, samples in walk(case, rois):
        for corners in samples:
            for y, x, weight in corners:
                grads[level][image, :, y, x] += grad[index, :, py, px] * float(weight) / float(count)
    return [torch.from_numpy(total) for total in grads]


def call(case, features, rois):
    return roi_align(
        features,
        rois,
        output_size=case.output_size,
        spatial_scales=case.scales,
        sampling_ratio=case.sampling_ratio,
    )


def op_arguments(case, requires_grad=False):
    features = [feature.requires_grad_(requires_grad) for feature in case.features()]
    rois = case.make_rois()
    levels = roi_levels(rois, spatial_scales=case.scales) if len(case.scales) > 1 else None
    return features, rois, levels, list(case.output_size), list(case.scales), case.sampling_ratio


def backward_arguments(case):
    _, rois, levels, bins, scales, sampling_ratio = op_arguments(case)
    grad = torch.randn(len(rois), case.channels, *bins, generator=torch.Generator().manual_seed(2)).to(case.dtype)
    heights, widths = zip(*case.map_sizes(), strict=True)
    sizes = (case.num_images, list(heights), list(widths))
    return grad, rois, levels, *sizes, scales, sampling_ratio, case.channels_last


@pytest.mark.parametrize("case", ROI_CASES_ALL, ids=str)
def test_forward_equals_loops_bit_for_bit(case):
    features, rois = case.features(), case.make_rois()
    expected = forward_by_loops(case, features, rois)
    result = call(case, features, rois)
    assert result.dtype == case.dtype
    assert torch.equal(result, expected)
    assert torch.equal(roi_align_reference(*op_arguments(case)), expected)
    # A map of one pixel has both layouts, and counts as contiguous.
    layout = torch.contiguous_format if features[0].is_contiguous() else torch.channels_last
    assert result.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("case", ROI_CASES_ALL, ids=str)
def test_backward_equals_loops(case):
    arguments = backward_arguments(case)
    expected = backward_by_loops(case, arguments[0], arguments[1])
    # Half precision rounds once, at the end.
    tolerance = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[case.dtype]
    for backward in (torch.ops.mrcnn.roi_align_backward, roi_align_backward_reference):
        for grad, wanted in zip(backward(*arguments), expected, strict=True):
            assert grad.dtype == case.dtype
            torch.testing.assert_close(grad.double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradcheck(channels_last, sampling_ratio):
    case = RoiCase(
        "gradcheck",
        "empty_slots",
        num_rois=5,
        channels=2,
        image_size=(12, 20),
        scales=(1 / 4, 1 / 8),
        output_size=(2, 3),
        sampling_ratio=sampling_ratio,
        dtype=torch.float64,
        channels_last=channels_last,
    )
    features, rois = [feature.requires_grad_() for feature in case.features()], case.make_rois()
    rois[-1, 1:] = torch.tensor([0.0, 0.0, 300.0, 300.0])  # the coarse level too
    assert torch.autograd.gradcheck(lambda *maps: call(case, maps, rois), features, fast_mode=False)


def test_gradient_reaches_only_the_maps_that_ask_for_it():
    case = ROI_CASES[0]
    features, rois = case.features(), case.make_rois().requires_grad_()
    features[0].requires_grad_()
    call(case, features, rois).sum().backward()
    assert features[0].grad.abs().sum() > 0
    assert features[1].grad is None
    assert rois.grad is None


@pytest.mark.parametrize(
    "case", [replace(case, channels_last=last) for case in ROI_CASES for last in (False, True)], ids=str
)
def test_opcheck(case):
    torch.library.opcheck(torch.ops.mrcnn.roi_align.default, op_arguments(case, requires_grad=True))
    torch.library.opcheck(torch.ops.mrcnn.roi_align_backward.default, backward_arguments(case))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_opcheck_of_other_dtypes(dtype):
    case = replace(ROI_CASES[0], dtype=dtype)
    torch.library.opcheck(torch.ops.mrcnn.roi_align.default, op_arguments(case, requires_grad=True))
    torch.library.opcheck(torch.ops.mrcnn.roi_align_backward.default, backward_arguments(case))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_one_and_two_threads_agree_bit_for_bit(threads, channels_last, dtype, sampling_ratio):
    case = RoiCase(
        "threads",
        "proposals",
        num_rois=60,
        channels=140,
        image_size=(200, 320),
        output_size=(7, 7),
        sampling_ratio=sampling_ratio,
        dtype=dtype,
        channels_last=channels_last,
    )
    results = []
    for count in (1, 2):
        threads(count)
        output = torch.ops.mrcnn.roi_align(*op_arguments(case))
        results.append([output, *torch.ops.mrcnn.roi_align_backward(*backward_arguments(case))])
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3, 17, 64, 70, 131])
def test_both_layouts_agree_bit_for_bit(channels, dtype):
    # Sides and bins that no vector divides; one level with more rois than the other, and pixels that none reads.
    shape = RoiCase(
        "layouts",
        "proposals",
        num_rois=9,
        channels=channels,
        image_size=(92, 212),
        scales=(1 / 4, 1 / 8),
        output_size=(5, 7),
        dtype=dtype,
    )
    results = []
    for channels_last in (False, True):
        case = replace(shape, channels_last=channels_last)
        output = torch.ops.mrcnn.roi_align(*op_arguments(case))
        results.append([output, *torch.ops.mrcnn.roi_align_backward(*backward_arguments(case))])
    for planes, pixels in zip(*results, strict=True):
        assert torch.equal(planes, pixels)


def test_a_ramp_is_pooled_to_the_centres_of_the_bins():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    features = torch.stack([x, y])[None]
    rois = torch.tensor([[0.0, 20.0, 12.0, 100.0, 60.0]])  # 5 to 25 and 3 to 15 feature pixels
    pooled = roi_align([features], rois, output_size=(3, 4), spatial_scales=[0.25], sampling_ratio=2)
    torch.testing.assert_close(pooled[0, 0, 0], torch.tensor([7.5, 12.5, 17.5, 22.5]))
    torch.testing.assert_close(pooled[0, 1, :, 0], torch.tensor([5.0, 9.0, 13.0]))


def test_the_sum_of_the_gradients_is_that_of_the_output():
    case = replace(ROI_CASES[0], dtype=torch.float64)
    arguments = backward_arguments(case)
    grads = torch.ops.mrcnn.roi_align_backward(*arguments)
    torch.testing.assert_close(sum(grad.sum() for grad in grads), arguments[0].sum())


def test_maps_with_gaps_in_memory():
    case = ROI_CASES[0]
    features, rois = case.features(), case.make_rois()
    gappy = [torch.stack([feature, feature], dim=-1)[..., 0] for feature in features]
    assert not gappy[0].is_contiguous()
    assert torch.equal(call(case, gappy, rois), call(case, features, rois))


def test_levels():
    sides = [1, 55, 111, 112, 223, 224, 447, 448, 895, 896, 5000]
    rois = torch.tensor([[0.0, 10.0, 20.0, 10.0 + side - 1, 20.0 + side - 1] for side in sides])
    expected = [0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    assert roi_levels(rois, spatial_scales=PYRAMID).tolist() == expected
    inside_out = torch.tensor([[0.0, 50.0, 0.0, 10.0, 100.0], [0.0, math.nan, 0.0, 1.0, 1.0]])
    assert roi_levels(inside_out, spatial_scales=PYRAMID).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_keeps_the_dtype_of_the_features(dtype):
    case = replace(ROI_CASES[0], dtype=dtype)
    features, rois = case.features(), case.make_rois()
    expected = call(case, features, rois)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = call(case, features, rois)
    assert result.dtype == dtype
    assert torch.equal(result, expected)


def pool_pyramid(fine, rois):
    maps = [fine, fine[:, :, ::2, ::2]]
    return roi_align(maps, rois, output_size=(3, 3), spatial_scales=(0.25, 0.125), sampling_ratio=2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compile_without_graph_breaks(check_compile, layout):
    check_compile(pool_pyramid, layout)


def test_export_with_free_sizes(check_export):
    check_export(pool_pyramid)


@pytest.mark.parametrize("function", [torch.ops.mrcnn.roi_align, roi_align_reference], ids=["op", "plain"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scales": [0.25]}, ValueError, "one spatial scale per feature map is needed, got 4 maps and 1 scales"),
        ({"rois": torch.zeros(3, 4)}, ValueError, r"rois must have the shape \[R, 5\], got \[3, 4\]"),
        ({"rois": torch.zeros(20, 5).double()}, TypeError, "rois must be"),
        ({"rois": torch.full((20, 5), 7.0)}, ValueError, "roi 0 belongs to image 7, but the features hold 2"),
        ({"levels": None}, ValueError, "levels are needed for 4 feature maps"),
        ({"levels": torch.zeros(4).long()}, ValueError, r"levels must have the shape \[20\], got \[4\]"),
        ({"levels": torch.zeros(20).int()}, TypeError, "levels must be int64"),
        ({"bins": [0, 7]}, ValueError, r"output_size must be two positive numbers, got \[0, 7\]"),
        ({"sampling_ratio": -1}, ValueError, "sampling_ratio must be 0 or more, got -1"),
        ({"features": [torch.zeros(2, 5, 3, 3)] * 3 + [torch.zeros(2, 4, 3, 3)]}, ValueError, "must have the shape"),
        ({"features": [torch.zeros(2, 5, 3, 3)] * 3 + [torch.zeros(2, 5, 3, 3).half()]}, TypeError, "feature map"),
        ({"features": [torch.zeros(2, 5, 3, 3, dtype=torch.int32)] * 4}, TypeError, "float32"),
    ],
)
def test_wrong_arguments_are_named(function, change, error, message):
    names = ("features", "rois", "levels", "bins", "scales", "sampling_ratio")
    arguments = dict(zip(names, op_arguments(ROI_CASES[0]), strict=True)) | change
    with pytest.raises(error, match=message):
        function(*arguments.values())
