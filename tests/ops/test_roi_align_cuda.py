"""ROIAlign's CUDA kernels, emulated, against the plain ones. On the device: test_roi_align_device.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskrcnn_benchmark.ops._checks import memory_format_of
from maskrcnn_benchmark.ops._roi_align_plain import (
    empty_grads,
    empty_output,
    roi_align_backward_reference,
    roi_align_reference,
)
from tests.ops.inputs import DTYPES, ROI_CASES, RoiCase
from tests.ops.test_roi_align import backward_arguments, op_arguments

# Channels that fill whole vectors, and in float32 some that do not.
CASES = tuple(
    replace(case, num_rois=min(case.num_rois, 10), channels=channels, dtype=dtype, channels_last=last)
    for case in ROI_CASES
    if case.name != "tile_and_rest"
    for channels, dtype, last in zip(
        (3, 4, 6, 16, 8), DTYPES[:1] + DTYPES, (True, True, False, True, True), strict=True
    )
)
SMALL = RoiCase("", "proposals", num_rois=2, num_images=1, channels=2, image_size=(32, 48), scales=(1 / 8,))
LARGE = (
    # More channels than a block takes at a time.
    replace(SMALL, name="channels", channels=264, dtype=torch.float16, channels_last=True),
    replace(SMALL, name="channels_left", channels=35, channels_last=True),
    # More bins than are weighed at a time, and with two samples a bin than fit in the table of the forward kernel.
    replace(SMALL, name="bins", output_size=(17, 33)),
    replace(SMALL, name="table", output_size=(40, 25), sampling_ratio=2, channels_last=True),
    replace(SMALL, name="samples", sampling_ratio=5, channels_last=True),
    # More rois than a block sorts at a time, and on one tile than it lists and weighs at a time.
    replace(SMALL, name="rois", num_rois=1300, num_images=3, output_size=(1, 1), channels=1),
)
# Maps of many tiles.
TILES = replace(
    CASES[0], name="tiles", image_size=(200, 256), num_rois=6, output_size=(7, 7), channels=8, channels_last=True
)
BACKWARDS = ("backward_atomic", "backward_in_order")

HUGE = 3e38
# Of corners whose distance overflows, and wide enough for many samples outside of the map.
OVERFLOWING = torch.tensor([[0.0, -HUGE, -HUGE, HUGE, HUGE], [0, -HUGE, 1, HUGE, 5], [0, 1e30, 3, 1e31, 9]])
FAR = torch.tensor([[0.0, -9000, 2, 9000, 30], [0, 5, -7000, 20, 7000], [0, 10, 10, 9000, 40], [0, 900, 1, 4e3, 9]])


def tolerance(dtype):
    """Sums of a few terms in another order."""
    return {torch.float64: 1e-13, torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]


def assert_near(grads, wanted):
    for grad, want in zip(grads, wanted, strict=True):
        assert grad.dtype == want.dtype
        torch.testing.assert_close(grad, want, rtol=tolerance(want.dtype), atol=tolerance(want.dtype))


class Emulated:
    """The launchers of the emulated library, called as the ops are."""

    def __init__(self, library):
        self.library = library

    def call(self, name, dtype, rois, levels, sizes, scales, *rest):
        scales = torch.tensor(scales, dtype=torch.float64)
        return getattr(self.library, f"{name}_{str(dtype).removeprefix('torch.')}")(
            rois, levels, torch.tensor(sizes), scales, *rest
        )

    def forward(self, features, rois, levels, bins, scales, sampling_ratio):
        output = empty_output(features, rois, bins).fill_(7)
        shapes = [side for feature in features for side in feature.shape[2:]]
        sizes = [len(rois), *features[0].shape[:2], *bins, sampling_ratio, len(features), *shapes]
        maps = [*features, None, None, None][:4]
        channels_last = memory_format_of(features[0]) == torch.channels_last
        assert self.call("forward", features[0].dtype, rois, levels, sizes, scales, *maps, channels_last, output) == 0
        return output

    def backward(self, name, grad, rois, levels, num_images, heights, widths, scales, sampling_ratio, _):
        atomic = name == "backward_atomic"
        grad = grad.contiguous(memory_format=torch.channels_last)
        grads = empty_grads(grad.to(rois.dtype) if atomic else grad, num_images, heights, widths, True)
        maps = [*(result.fill_(0 if atomic else 7) for result in grads), None, None, None][:4]
        shapes = [side for size in zip(heights, widths, strict=True) for side in size]
        sizes = [len(rois), num_images, grad.shape[1], *grad.shape[2:], sampling_ratio, len(heights), *shapes]
        arguments = (grad.dtype, rois, levels, sizes, scales)
        rest = [] if atomic else [torch.empty(self.call("workspace", *arguments), dtype=torch.uint8)]
        assert self.call(name, *arguments, *maps, grad, *rest) == 0
        return [result.to(grad.dtype) for result in grads]


@pytest.fixture(autouse=True)
def one_thread(threads):
    """The maps are too small for more."""
    threads(1)


@pytest.fixture
def kernels(emulated):
    return Emulated(emulated("roi_align"))


@pytest.fixture
def in_both_orders(emulated):
    """Calls a function with the threads of a block in ascending order and once more in descending order."""
    library = emulated("roi_align")

    def run(function):
        first = function()
        library.set_order(reverse=True)
        second = function()
        return first, second

    yield run
    library.set_order(reverse=False)


@pytest.mark.parametrize("case", CASES + LARGE, ids=str)
def test_emulated_forward_equals_the_plain_kernel_bit_for_bit(kernels, in_both_orders, case):
    arguments = op_arguments(case)
    wanted = roi_align_reference(*arguments)
    for result in in_both_orders(lambda: kernels.forward(*arguments)):
        assert torch.equal(result, wanted)


def test_emulated_forward_reads_nothing_for_a_sample_outside(kernels):
    """Not even times 0, which would not be 0 here."""
    case = next(case for case in CASES if case.name == "outside" and case.channels == 4)
    features, *rest = op_arguments(case)
    for feature in features:
        feature[:, :, 0] = torch.nan
    result, wanted = kernels.forward(features, *rest), roi_align_reference(features, *rest)
    assert wanted.isnan().any()
    assert (wanted == 0).any()
    torch.testing.assert_close(result, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", BACKWARDS)
@pytest.mark.parametrize("case", [*CASES, *LARGE, TILES], ids=str)
def test_emulated_backward_equals_the_plain_kernel(kernels, in_both_orders, name, case):
    arguments = backward_arguments(case)
    wanted = roi_align_backward_reference(*arguments)
    first, second = in_both_orders(lambda: kernels.backward(name, *arguments))
    assert_near(first, wanted)
    if name == "backward_in_order":
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    else:
        assert_near(second, wanted)


def with_missing_sources(rois, levels, missing):
    """Rois 0 to 2 of an image or a level that is not there, or for the comparison empty slots."""
    rois, levels = rois.clone(), levels.clone()
    if missing:
        rois[0, 0], levels[1], levels[2] = 2, 4, -1
    else:
        rois[:3, 0] = -1
    return rois, levels


@pytest.mark.parametrize("channels_last", [False, True])
def test_emulated_kernels_take_what_is_not_there_for_empty_slots(kernels, channels_last):
    case = replace(CASES[1], channels_last=channels_last)
    features, rois, levels, *rest = op_arguments(case)
    outputs = [
        kernels.forward(features, *with_missing_sources(rois, levels, missing), *rest) for missing in (True, False)
    ]
    assert torch.equal(*outputs)
    assert not outputs[0][:3].any()
    assert outputs[0][3:].any()
    grad, rois, levels, *rest = backward_arguments(case)
    for name in BACKWARDS:
        grads = [
            kernels.backward(name, grad, *with_missing_sources(rois, levels, missing), *rest)
            for missing in (True, False)
        ]
        assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


@pytest.mark.parametrize(("rois", "sampling_ratio"), [(FAR, 0), (FAR, 2), (FAR, 3), (OVERFLOWING, 2)])
def test_emulated_kernels_with_rois_far_beyond_the_map(kernels, rois, sampling_ratio):
    features = [torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(3))]
    features[0] = features[0].contiguous(memory_format=torch.channels_last)
    arguments = (rois, None, [3, 2], [0.125], sampling_ratio)
    output = kernels.forward(features, *arguments)
    assert torch.equal(output, roi_align_reference(features, *arguments))
    arguments = (output + 1, rois, None, 1, [8], [12], [0.125], sampling_ratio, True)
    for name in BACKWARDS:
        assert_near(kernels.backward(name, *arguments), roi_align_backward_reference(*arguments))


def test_emulated_kernels_pass_over_the_samples_outside(kernels):
    """One by one, the 2^40 samples of a bin would take hours."""
    features = [torch.ones(1, 1, 8, 12)]
    assert not kernels.forward(features, OVERFLOWING, None, [3, 2], [0.125], 0).any()
    arguments = (torch.ones(3, 1, 3, 2), OVERFLOWING, None, 1, [8], [12], [0.125], 0, True)
    assert not any(grad.any() for name in BACKWARDS for grad in kernels.backward(name, *arguments))


@pytest.mark.parametrize("name", BACKWARDS)
def test_emulated_backward_keeps_an_infinite_gradient_where_it_belongs(kernels, name):
    arguments = backward_arguments(replace(CASES[1], num_rois=4))
    arguments[0][0, 1] = torch.inf
    wanted = roi_align_backward_reference(*arguments)
    results = kernels.backward(name, *arguments)
    assert any(result.isinf().any() for result in results)
    for result, want in zip(results, wanted, strict=True):
        assert result[want.isfinite()].isfinite().all()
