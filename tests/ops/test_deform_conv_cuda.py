"""Deformable convolution's CUDA kernels against the plain ones: emulated, and on the device where there is one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskrcnn_benchmark.ops import deform_conv
from maskrcnn_benchmark.ops._deform_conv_plain import _columns, _corners, _maps, _sample
from maskrcnn_benchmark.ops._library import plain_kernel
from tests.ops.deform_conv_cases import CASES, CASES_ALL, DeformConvCase
from tests.ops.inputs import DTYPES
from tests.ops.on_gpu import without_waiting

# Two dtypes for each case, in turn; channels that fill whole vectors, and channels that do not.
EMULATED = tuple(
    replace(case, dtype=dtype, size=min(case.size, (4, 6)))
    for position, case in enumerate(CASES)
    for dtype in DTYPES[position % 2 :: 2]
    if case.num_images
)
EMULATED += (
    DeformConvCase("vectors", True, channels=16, deformable_groups=2, num_images=1, dtype=torch.float16),
    DeformConvCase("many_samples", True, channels=9, deformable_groups=9, kernel=(3, 4), num_images=1, size=(4, 4)),
)


class Emulated:
    """The launchers of the emulated library for one case, on some of its output pixels."""

    def __init__(self, library, case):
        self.library, self.case = library, case
        self.input, self.weight, self.offset, self.mask, *self.rest = case.arguments()
        self.channels_inside = [
            None if value is None else value.permute(0, 2, 3, 1).contiguous() for value in (self.offset, self.mask)
        ]

    def call(self, name, rows, *tensors):
        case, sizes = self.case, (self.case.num_images, self.case.channels, *self.case.size)
        sizes += (*case.output_size(), *case.kernel, *case.stride, *case.padding, *case.dilation)
        sizes += (case.groups, case.deformable_groups, *rows)
        function = getattr(self.library, f"{name}_{str(case.dtype).removeprefix('torch.')}")
        assert function(*self.channels_inside, torch.tensor(sizes), *tensors) == 0

    def by_pixel(self):
        """The input [N, H, W, C]."""
        return self.input.permute(0, 2, 3, 1).contiguous()


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def library(emulated, request):
    """Blocks and threads run in this order."""
    library = emulated("deform_conv")
    library.set_order(reverse=request.param)
    yield library
    library.set_order(reverse=False)


def plain_parts(case):
    """Samples and corners of the plain kernel, and the columns [G, P, K * C / G] in the order of the compiled ones."""
    input, weight, offset, mask, stride, padding, dilation, groups, parts = case.arguments()
    samples = _sample(input, offset, mask, weight.shape[2:], stride, padding, dilation, parts)
    corners = _corners(_maps(input, parts, offset.dtype), samples)
    columns = _columns(corners, samples, groups, case.kernel[0] * case.kernel[1])
    return samples, corners, to_rows(case, columns)


def to_rows(case, columns):
    """[N, G, C / G * K, P / N] as [G, P, K * C / G]."""
    group, taps = case.channels // case.groups, case.kernel[0] * case.kernel[1]
    columns = columns.reshape(case.num_images, case.groups, group, taps, -1)
    return columns.permute(1, 0, 4, 3, 2).reshape(case.groups, -1, taps * group)


def from_rows(case, rows):
    """[G, P, K * C / G] as [N, D, C / D, K * P / N]."""
    group, taps = case.channels // case.groups, case.kernel[0] * case.kernel[1]
    columns = rows.reshape(case.groups, case.num_images, -1, taps, group).permute(1, 0, 4, 3, 2)
    return columns.reshape(case.num_images, case.deformable_groups, case.channels // case.deformable_groups, -1)


def middle_rows(case):
    """First and number of some output pixels."""
    height, width = case.output_size()
    pixels = case.num_images * height * width
    return pixels // 3, pixels - pixels // 3


@pytest.mark.parametrize("case", EMULATED, ids=str)
def test_emulated_columns_equal_the_plain_ones_bit_for_bit(library, case):
    kernels, (first, count) = Emulated(library, case), middle_rows(case)
    expected = plain_parts(case)[2][:, first : first + count].to(case.dtype)
    columns = torch.full(expected.shape, 7.0, dtype=case.dtype)
    kernels.call("read", (first, count), kernels.by_pixel(), columns)
    assert torch.equal(columns, expected)


def columns_grad_of(case, count):
    shape = (case.groups, count, case.kernel[0] * case.kernel[1] * case.channels // case.groups)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(case.dtype)


@pytest.mark.parametrize("case", EMULATED, ids=str)
def test_emulated_gradients_of_the_samples_equal_the_plain_ones(library, case):
    kernels, (first, count) = Emulated(library, case), middle_rows(case)
    samples, corners, _ = plain_parts(case)
    columns_grad = columns_grad_of(case, count)
    padded = torch.nn.functional.pad(columns_grad.to(case.precise), (0, 0, first, 0))
    products = [(from_rows(case, padded) * corner).sum(2) for corner in corners]
    below, right = samples.below, samples.right
    mask = 1 if kernels.mask is None else kernels.mask.reshape(below.shape)
    expected = torch.stack(
        [
            ((1 - right) * (products[2] - products[0]) + right * (products[3] - products[1])) * mask,
            ((1 - below) * (products[1] - products[0]) + below * (products[3] - products[2])) * mask,
            sum(product * share for product, share in zip(products, samples.bilinear, strict=True)),
        ],
        dim=-1,
    )  # [N, D, K * P / N, 3]
    points = case.deformable_groups * case.kernel[0] * case.kernel[1]
    expected = expected.reshape(case.num_images, points, -1, 3).transpose(1, 2).reshape(-1, points, 3)
    result = torch.full(expected.shape, 7.0, dtype=case.precise)
    kernels.call("read_backward", (first, count), kernels.by_pixel(), columns_grad, result)
    torch.testing.assert_close(result[first:], expected[first:], rtol=1e-5, atol=1e-5)
    assert (result[:first] == 7).all()


def scattered(case, kernels, rows, columns_grad):
    """What the corners add, as [N, H, W, C] in the order of the output pixels, taps and corners, by plain loops."""
    first, count = rows
    samples = plain_parts(case)[0]
    padded = torch.nn.functional.pad(columns_grad.to(case.precise), (0, 0, first, 0))
    grads = from_rows(case, padded)
    num_images, parts, size, _ = grads.shape
    taps = case.kernel[0] * case.kernel[1]
    sums = torch.zeros(num_images, *case.size, parts, size, dtype=case.precise).flatten(1, 2)
    pixels = case.output_size()[0] * case.output_size()[1]
    for pixel in range(first, first + count):
        image, place = divmod(pixel, pixels)
        for tap in range(taps):
            for corner in range(4):
                for part in range(parts):
                    index = image, part, tap * pixels + place
                    if samples.inside[corner][index]:
                        values = grads[image, part, :, tap * pixels + place] * samples.weights[corner][index]
                        sums[image, samples.places[corner][index], part] += values
    return sums.reshape(num_images, *case.size, case.channels)


@pytest.mark.parametrize("case", EMULATED, ids=str)
def test_emulated_gradients_of_the_input(library, case):
    kernels, rows = Emulated(library, case), middle_rows(case)
    columns_grad = columns_grad_of(case, rows[1])
    expected = scattered(case, kernels, rows, columns_grad)
    sums = torch.zeros_like(expected)
    kernels.call("scatter", rows, columns_grad, sums)
    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-5)

    points = case.deformable_groups * case.kernel[0] * case.kernel[1]
    keys = torch.full((rows[1] * points * 4,), -1)
    kernels.call("write_keys", rows, keys)
    ordered, order = keys.sort(stable=True)
    num_keys = case.deformable_groups * case.num_images * case.size[0] * case.size[1]
    assert keys.min() >= 0
    assert keys.max() <= num_keys
    begins = torch.searchsorted(ordered, torch.arange(num_keys + 1))
    in_order = torch.zeros_like(expected)
    kernels.call("scatter_in_order", rows, columns_grad, order, begins, in_order)
    assert torch.equal(in_order, expected)


@pytest.fixture
def on_device(without_extension):
    """Copies the tensors of a call to the GPU."""
    if without_extension:
        pytest.skip("needs the compiled kernels")
    return lambda arguments: [value.cuda() if isinstance(value, torch.Tensor) else value for value in arguments]


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def assert_near(results, expected, dtype):
    """Products of matrices in the dtype itself, whose sums run in float32."""
    near = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    for result, want in zip(results, expected, strict=True):
        scale = max(want.double().abs().max().item(), 1.0) if want.numel() else 1.0
        torch.testing.assert_close(result.cpu().double(), want.double(), rtol=0, atol=near * scale)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES_ALL, ids=str)
def test_device_equals_the_plain_kernel_without_waiting(on_device, case):
    arguments, backward = case.arguments(), case.backward_arguments()
    output = without_waiting(torch.ops.mrcnn.deform_conv, on_device(arguments))
    assert_near([output], [plain_kernel("deform_conv")(*arguments)], case.dtype)
    grads = without_waiting(torch.ops.mrcnn.deform_conv_backward, on_device(backward))
    assert_near(grads, plain_kernel("deform_conv_backward")(*backward), case.dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES_ALL, ids=str)
def test_device_deterministic_backward_gives_the_same_bits_twice(on_device, deterministic, case, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    arguments = case.backward_arguments()
    first, second = (without_waiting(torch.ops.mrcnn.deform_conv_backward, on_device(arguments)) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    assert_near(first, plain_kernel("deform_conv_backward")(*arguments), case.dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True])
def test_device_gradcheck_and_opcheck(on_device, channels_last):
    case = replace(CASES[6], dtype=torch.float64, num_images=1, size=(3, 4), channels_last=channels_last)
    arguments = on_device(case.arguments())
    leaves = [tensor.requires_grad_() for tensor in arguments[:4]]
    run = lambda *tensors: torch.ops.mrcnn.deform_conv(*tensors, *arguments[4:])  # noqa: E731
    assert torch.autograd.gradcheck(run, leaves, nondet_tol=1e-10)
    torch.library.opcheck(torch.ops.mrcnn.deform_conv.default, arguments)
    torch.library.opcheck(torch.ops.mrcnn.deform_conv_backward.default, on_device(case.backward_arguments()))


@pytest.mark.gpu
def test_device_autocast_computes_in_the_dtype_of_the_input(on_device):
    input, weight, offset, mask, *_ = on_device(CASES[1].arguments())
    with torch.autocast("cuda", dtype=torch.float16):
        result = deform_conv(input, weight, offset, mask, padding=(1, 1))
    assert torch.equal(result, deform_conv(input, weight, offset, mask, padding=(1, 1)))


@pytest.mark.gpu
def test_device_refuses_tensors_of_two_devices(on_device):
    arguments = CASES[1].arguments()
    with pytest.raises(ValueError, match="all tensors must lie on one device, got input on cuda:0, weight on cpu"):
        torch.ops.mrcnn.deform_conv(arguments[0].cuda(), *arguments[1:])
