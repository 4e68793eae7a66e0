"""Deformable convolution against torchvision's figures and loops, and through autograd, opcheck, compile and export."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn_benchmark.ops._library import plain_kernel
from maskrcnn_benchmark.ops.deform_conv import deform_conv
from tests.ops.deform_conv_cases import CASES, CASES_ALL, DeformConvCase

GOLDEN = Path(__file__).parents[1] / "golden" / "deform_conv.npz"  # what torchvision 0.28 computes in float64
GRADS = ("input", "weight", "offset", "mask")
# Loops take their time: two cases in all dtypes and layouts, the others in one of each.
BY_LOOPS = [case for case in CASES_ALL if case.name in ("masked", "parts_cross")]
BY_LOOPS += [
    replace(case, channels_last=True) for case in CASES if case.name not in ("masked", "parts_cross", "tile_and_rest")
]
KERNELS = {"op": lambda name: getattr(torch.ops.mrcnn, name), "plain": plain_kernel}


def read_by_loops(image, y, x):
    """The bilinear value at a point of a map [H, W] that is zero outside."""
    height, width = image.shape
    if not (-1 < y < height and -1 < x < width):
        return 0.0
    value, top, left = 0.0, math.floor(y), math.floor(x)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                value += image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return value


def convolve_by_loops(case, arguments):
    input, weight, offset, mask = (None if value is None else value.double().numpy() for value in arguments[:4])
    taps, (height, width) = case.kernel[0] * case.kernel[1], case.output_size()
    columns = np.zeros((case.num_images, case.channels, taps, height, width))
    for image, channel, tap, oy, ox in np.ndindex(columns.shape):
        point = channel // (case.channels // case.deformable_groups) * taps + tap
        shift = offset[image, 2 * point : 2 * point + 2, oy, ox]
        y = oy * case.stride[0] - case.padding[0] + tap // case.kernel[1] * case.dilation[0] + shift[0]
        x = ox * case.stride[1] - case.padding[1] + tap % case.kernel[1] * case.dilation[1] + shift[1]
        factor = 1.0 if mask is None else mask[image, point, oy, ox]
        columns[image, channel, tap, oy, ox] = factor * read_by_loops(input[image, channel], y, x)
    output = np.zeros((case.num_images, case.output_channels, height, width))
    group, outputs = case.channels // case.groups, case.output_channels // case.groups
    for o in range(case.output_channels):
        first = o // outputs * group
        kernel = weight[o].reshape(group, taps)
        output[:, o] = np.einsum("ct,nctyx->nyx", kernel, columns[:, first : first + group])
    return torch.from_numpy(output)


def tolerance(dtype):
    """Sums of up to some hundred terms in another order, rounded to the dtype once."""
    return {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]


def layout_of(case):
    return torch.channels_last if case.channels_last else torch.contiguous_format


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", [case for case in CASES if case.num_images], ids=str)
def test_equals_torchvision(golden, case, kernel):
    grad, *arguments = replace(case, dtype=torch.float64).backward_arguments()
    output = KERNELS[kernel]("deform_conv")(*arguments)
    torch.testing.assert_close(output.float(), golden[f"{case.name}/output"], rtol=1e-6, atol=1e-6)
    grads = KERNELS[kernel]("deform_conv_backward")(grad, *arguments)
    for name, result in zip(GRADS if case.masked else GRADS[:3], grads, strict=False):
        torch.testing.assert_close(result.float(), golden[f"{case.name}/{name}"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torchvision_here(dtype):
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError) as error:  # a build for another torch
        pytest.skip(f"needs a torchvision that fits this torch: {error}")
    case = DeformConvCase("here", True, channels=8, size=(16, 20), deformable_groups=2, stride=(2, 2), dtype=dtype)
    input, weight, offset, mask, stride, padding, dilation, *_ = case.arguments()
    leaves = [tensor.requires_grad_() for tensor in (input, weight, offset, mask)]
    ours = torch.ops.mrcnn.deform_conv(*leaves, stride, padding, dilation, 1, 2)
    theirs = deform_conv2d(input, offset, weight, None, stride, padding, dilation, mask)
    torch.testing.assert_close(ours, theirs)
    grads = (torch.autograd.grad(result.square().sum(), leaves) for result in (ours, theirs))
    for result, expected in zip(*grads, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", BY_LOOPS, ids=str)
def test_forward_equals_loops(case):
    arguments = case.arguments()
    expected = convolve_by_loops(case, arguments)
    for function in (torch.ops.mrcnn.deform_conv, plain_kernel("deform_conv")):
        output = function(*arguments)
        assert output.dtype == case.dtype
        assert case.num_images == 0 or output.is_contiguous(memory_format=layout_of(case))
        torch.testing.assert_close(output.double(), expected, rtol=tolerance(case.dtype), atol=tolerance(case.dtype))


@pytest.mark.parametrize("case", CASES_ALL, ids=str)
def test_backward_equals_the_plain_kernel_in_float64(case):
    results = torch.ops.mrcnn.deform_conv_backward(*case.backward_arguments())
    precise = [value.double() if isinstance(value, torch.Tensor) else value for value in case.backward_arguments()]
    expected = plain_kernel("deform_conv_backward")(*precise)
    for result, want, argument in zip(results, expected, case.arguments()[:4], strict=True):
        assert argument is None or (result.dtype, result.shape) == (argument.dtype, argument.shape)
        scale = max(want.abs().max().item(), 1.0) if want.numel() else 1.0
        torch.testing.assert_close(result.double(), want, rtol=0, atol=tolerance(case.dtype) * scale)
    assert case.masked or results[3].numel() == 0


@pytest.mark.parametrize("name", ["masked", "plain", "parts_cross", "strided_groups", "one_pixel"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradcheck(name, channels_last):
    case = next(case for case in CASES if case.name == name)
    case = replace(case, dtype=torch.float64, num_images=1, size=(3, 4), channels_last=channels_last)
    arguments = case.arguments()
    leaves = [value.requires_grad_() for value in arguments[:4] if value is not None]

    def run(input, weight, offset, mask=None):
        return torch.ops.mrcnn.deform_conv(input, weight, offset, mask, *arguments[4:])

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize(("name", "channels_last"), [("plain", False), ("parts_cross", True)])
def test_opcheck(name, channels_last):
    case = replace(next(case for case in CASES if case.name == name), channels_last=channels_last)
    arguments = case.arguments()
    for value in arguments[:4]:
        if value is not None:
            value.requires_grad_()
    torch.library.opcheck(torch.ops.mrcnn.deform_conv.default, arguments)
    torch.library.opcheck(torch.ops.mrcnn.deform_conv_backward.default, case.backward_arguments())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("size", [(1, 1), (40, 45)])
def test_one_and_two_threads_agree_bit_for_bit(threads, dtype, size):
    # columns of more than one tile, blocks of products that do not divide evenly
    case = DeformConvCase("threads", True, num_images=1, channels=136, output_channels=130, size=size, dtype=dtype)
    results = []
    for count in (1, 2):
        threads(count)
        output = torch.ops.mrcnn.deform_conv(*case.arguments())
        results.append((output, *torch.ops.mrcnn.deform_conv_backward(*case.backward_arguments())))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_offsets_it_is_a_convolution(kernel):
    case = DeformConvCase("conv", channels=8, groups=2, stride=(2, 1), dilation=(1, 2), padding=(1, 2), reach=0.0)
    arguments = case.arguments()
    output = KERNELS[kernel]("deform_conv")(*arguments)
    expected = torch.conv2d(arguments[0], arguments[1], None, (2, 1), (1, 2), (1, 2), 2)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_an_offset_that_is_no_place_reads_nothing(kernel, value):
    case = DeformConvCase("nowhere", True, num_images=1)
    grad, *arguments = case.backward_arguments()
    arguments[2][0, :2, 3, 4] = value  # of the first tap
    output = KERNELS[kernel]("deform_conv")(*arguments)
    arguments[3][0, 0, 3, 4] = 0
    arguments[2][0, :2, 3, 4] = 0
    torch.testing.assert_close(output, KERNELS[kernel]("deform_conv")(*arguments))
    arguments[2][0, :2, 3, 4] = value
    grads = KERNELS[kernel]("deform_conv_backward")(grad, *arguments)
    assert all(result.isfinite().all() for result in grads)
    assert (grads[2][0, :2, 3, 4] == 0).all()
    assert grads[3][0, 0, 3, 4] == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_gradient_one_pixel_off_the_map_looks_inwards(kernel):
    input = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    offset = torch.zeros(1, 2, 3, 3)
    arguments = input, torch.ones(1, 1, 1, 1), offset, None, [1, 1], [0, 0], [1, 1], 1, 1
    offset[0, 0, 0, 1] = -1  # (-1, 1): the value is 0, and (0, 1) is the next one
    offset[0, 0, 2, 1] = 1  # (3, 1): behind the last row is nothing
    assert KERNELS[kernel]("deform_conv")(*arguments)[0, 0, 0, 1] == 0
    grad = KERNELS[kernel]("deform_conv_backward")(torch.ones(1, 1, 3, 3), *arguments)[2]
    assert grad[0, 0, 0, 1] == 2
    assert grad[0, 0, 2, 1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_the_dtype_of_the_input(dtype):
    input, weight, offset, mask, *_ = replace(CASES[1], dtype=dtype).arguments()
    options = {"padding": (1, 1)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = deform_conv(input, weight.float(), offset.bfloat16(), mask, torch.ones(6), **options)
    assert result.dtype == dtype
    expected = deform_conv(input, weight, offset.bfloat16().float(), mask, torch.ones(6, dtype=dtype), **options)
    assert torch.equal(result, expected)


class ConvThenDeform(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.offset = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 27, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3))

    def forward(self, image):
        x = self.conv(image)
        offset, mask = self.offset(x).split([18, 9], dim=1)
        return deform_conv(x, self.weight, offset, mask.sigmoid(), padding=(1, 1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_compile_without_graph_breaks(layout):
    model = ConvThenDeform().to(memory_format=layout)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for height in (8, 12):
        image = torch.randn(2, 3, height, 10).contiguous(memory_format=layout)
        results = []
        for function in (model, compiled):
            model.zero_grad()
            output = function(image)
            output.square().mean().backward()
            results.append((output.detach(), *(parameter.grad.clone() for parameter in model.parameters())))
        torch.testing.assert_close(results[0], results[1])


def test_export_with_free_sizes():
    model, free = ConvThenDeform().eval(), torch.export.Dim.AUTO
    program = torch.export.export(model, (torch.randn(2, 3, 8, 10),), dynamic_shapes=({2: free, 3: free},))
    image = torch.randn(2, 3, 12, 14)
    torch.testing.assert_close(program.module()(image), model(image))


def test_operations_are_counted_as_those_of_a_convolution():
    input, weight, offset, mask, *_ = CASES[1].arguments()
    counts = []
    for convolve in (
        lambda x: deform_conv(x, weight, offset, mask, padding=(1, 1)),
        lambda x: torch.conv2d(x, weight, padding=1),
    ):
        with FlopCounterMode(display=False) as counter:
            convolve(input.clone().requires_grad_()).sum()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("place", "value", "error", "message"),
    [
        (0, torch.zeros(4, 7, 9), ValueError, r"input must have the shape \[N, C, H, W\], got \[4, 7, 9\]"),
        (0, torch.zeros(2, 4, 7, 9).long(), TypeError, "float32"),
        (1, torch.zeros(6, 3, 3, 3), ValueError, r"weight must have the shape \[O, 4, kh, kw\], got \[6, 3, 3, 3\]"),
        (1, torch.zeros(6, 4, 3, 3).half(), TypeError, "weight must be"),
        (1, torch.zeros(6, 4, 30, 3), ValueError, r"the kernel \[30, 3\] does not fit the padded input"),
        (2, torch.zeros(2, 9, 7, 9), ValueError, r"offset must have the shape \[2, 18, 7, 9\], got \[2, 9, 7, 9\]"),
        (2, torch.zeros(2, 18, 7, 9).half(), TypeError, "offset must be"),
        (3, torch.zeros(2, 18, 7, 9), ValueError, r"mask must have the shape \[2, 9, 7, 9\], got \[2, 18, 7, 9\]"),
        (4, [0, 1], ValueError, r"stride must be two numbers of at least 1, got \[0, 1\]"),
        (5, [-1, 1], ValueError, r"padding must be two numbers of at least 0, got \[-1, 1\]"),
        (7, 3, ValueError, r"4 channels must divide into groups \(3\) and deformable_groups \(1\)"),
        (8, 3, ValueError, r"4 channels must divide into groups \(1\) and deformable_groups \(3\)"),
        (7, 4, ValueError, r"6 output channels must divide into groups \(4\)"),
    ],
)
def test_wrong_arguments_are_named(kernel, place, value, error, message):
    arguments = list(CASES[1].arguments())
    arguments[place] = value
    if (place, value) == (7, 4):
        arguments[1] = torch.zeros(6, 1, 3, 3)
    with pytest.raises(error, match=message):
        KERNELS[kernel]("deform_conv")(*arguments)
