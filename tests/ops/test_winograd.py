"""The 3x3 convolution with fewer multiplications against the ordinary one in float64."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn_benchmark.ops import winograd
from maskrcnn_benchmark.ops._library import plain_kernel
from maskrcnn_benchmark.ops.winograd import winograd_conv, winograd_pays
from tests.ops.winograd_cases import CASES, MASK_HEAD, ConvCase

OP = torch.ops.mrcnn.winograd_conv
BACKWARD = torch.ops.mrcnn.winograd_conv_backward
SMALL = [case for case in CASES if case.name in ("edges", "relu", "many_small_maps", "no_images")]


def exact(input, weight, scale, bias, relu):
    """In float64, by PyTorch's convolution."""
    factors = weight.double() if scale is None else weight.double() * scale.double()[:, None, None, None]
    output = F.conv2d(input.double(), factors, None if bias is None else bias.double(), padding=1)
    return output.relu() if relu else output


def exact_grads(grad, output, input, weight, scale, wanted):
    """Of the same in float64, by autograd; output decides where the ReLU let values through."""
    leaves = [tensor.double().requires_grad_() for tensor in (input, weight, torch.zeros(len(weight)))]
    result = exact(leaves[0], leaves[1], scale, leaves[2], False)
    gate = 1.0 if output is None else (output > 0).double()
    return torch.autograd.grad(result, leaves, grad.double() * gate)


def assert_near(found, expected, tolerance=3e-5):
    """Within a share of the largest expected value: that of the sums that the transforms take differences of."""
    largest = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward(case):
    arguments = case.arguments()
    found = OP(*arguments)
    assert_near(found, exact(*arguments))
    assert found.is_contiguous(memory_format=torch.channels_last if case.channels_last else torch.contiguous_format)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backward(case):
    arguments = case.backward_arguments()
    for found, expected, wanted in zip(BACKWARD(*arguments), exact_grads(*arguments), arguments[-1], strict=True):
        if wanted:
            assert_near(found, expected)
        else:
            assert found.numel() == 0


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_plain_kernels(case):
    assert_near(plain_kernel("winograd_conv")(*case.arguments()), exact(*case.arguments()), 1e-6)
    arguments = case.backward_arguments()
    grads = plain_kernel("winograd_conv_backward")(*arguments)
    for found, expected, wanted in zip(grads, exact_grads(*arguments), arguments[-1], strict=True):
        if wanted:
            assert_near(found, expected, 1e-6)


@pytest.mark.parametrize("wanted", [[True, False, False], [False, True, False], [False, False, True]])
def test_each_gradient_alone(wanted):
    arguments = SMALL[2].backward_arguments()[:-1]
    together = BACKWARD(*arguments, [True] * 3)
    for found, expected, asked_for in zip(BACKWARD(*arguments, wanted), together, wanted, strict=True):
        torch.testing.assert_close(found, expected if asked_for else torch.empty(0), rtol=1e-5, atol=1e-5)


def test_autograd_reaches_input_weight_bias_and_a_scale_that_learns():
    input, weight, scale, bias, _ = ConvCase("autograd").arguments()
    leaves = [tensor.requires_grad_() for tensor in (input, weight, scale, bias)]
    grad = torch.randn(1, 48, 13, 20)
    output = winograd_conv(input, weight, bias, scale=scale, relu=True)
    found = torch.autograd.grad(output, leaves, grad)
    # Where the two outputs have other signs, their gradients differ as a whole: both take the same ones.
    expected = torch.autograd.grad(exact(input, weight, scale, bias, False), leaves, grad.double() * (output > 0))
    for mine, theirs in zip(found, expected, strict=True):
        assert_near(mine, theirs.double())


def test_all_numbers_of_threads_give_the_same_bits(threads):
    for case in (MASK_HEAD, ConvCase("large", 1, 128, 96, (90, 70), relu=True)):
        case = ConvCase(case.name, min(case.num_images, 9), 64, 96, case.size, relu=True)
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append([OP(*case.arguments()), *BACKWARD(*case.backward_arguments())])
        for tensors in zip(*results, strict=True):
            assert all(torch.equal(tensor, tensors[0]) for tensor in tensors)


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_older_processors(capability, repository, without_extension):
    if without_extension or not winograd._has_kernel():
        pytest.skip("needs the compiled kernel")
    code = (
        "from tests.ops import test_winograd as t\n"
        "for case in t.SMALL: t.test_forward(case); t.test_backward(case)\n"
        "print(t.winograd._has_kernel())"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(capability == "avx2")]


def test_strides_of_any_kind():
    input, weight, scale, bias, relu = ConvCase("strided").arguments()
    expected = OP(input, weight, scale, bias, relu)
    spread = F.pad(input, (1, 2, 3, 1))[:, :, 3:-1, 1:-2]
    flipped = weight.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    every_second = torch.stack([scale, bias], dim=1)
    assert torch.equal(OP(spread, flipped, every_second[:, 0], every_second[:, 1], relu), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(value):
    input, weight, _, bias, _ = ConvCase("faults").arguments()
    input[0, 3, 4, 5] = value
    output = OP(input, weight, None, bias, value != value)  # a ReLU may turn what is infinite into 0
    assert not output[0, :, 3:6, 4:7].isfinite().any()


@pytest.mark.parametrize("case", [SMALL[0], SMALL[3]], ids=str)
def test_opcheck(case):
    input, weight, scale, bias, relu = case.arguments()
    torch.library.opcheck(OP.default, (input, weight.requires_grad_(), scale, bias, relu))
    torch.library.opcheck(BACKWARD.default, case.backward_arguments())


def test_compiled_without_graph_breaks():
    input, weight, scale, bias, _ = ConvCase("compiled").arguments()
    function = lambda x: winograd_conv(x, weight, bias, scale=scale, relu=True) * 2  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input), function(input))


def test_flops_are_those_of_the_convolution():
    input, weight, *_ = ConvCase("flops").arguments()
    counts = []
    for convolve in (F.conv2d, lambda x, w, padding: winograd_conv(x, w)):
        with FlopCounterMode(display=False) as counter:
            convolve(input.requires_grad_(), weight.requires_grad_(), padding=1).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_pays_only_where_it_is_meant_to(without_extension):
    case = ConvCase("pays", 1, 64, 64, (40, 40))
    input, weight, *_ = case.arguments()
    assert winograd_pays(input, weight) == (winograd._has_kernel() and not without_extension)
    assert not winograd_pays(input.double(), weight.double())
    assert not winograd_pays(input.to("meta"), weight)
    assert not winograd_pays(input[:, :, :20, :20], weight)
    assert not winograd_pays(input[:, :32], weight[:, :32])
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd_pays(input, weight)


def test_faults_name_the_argument():
    input, weight, scale, bias, relu = ConvCase("faults").arguments()
    for function in (OP, plain_kernel("winograd_conv")):
        with pytest.raises(ValueError, match=r"winograd_conv: input must have the shape \[N, C, H, W\]"):
            function(input[0], weight, scale, bias, relu)
        with pytest.raises(ValueError, match="weight must have the shape"):
            function(input, weight[..., :2], scale, bias, relu)
        with pytest.raises(ValueError, match="channels must be multiples of 16, got 32 and 40"):
            function(input, weight[:40], scale[:40], bias[:40], relu)
        with pytest.raises(ValueError, match=r"scale must have the shape \[48\]"):
            function(input, weight, scale[:5], bias, relu)
        with pytest.raises(ValueError, match=r"bias must have the shape \[48\]"):
            function(input, weight, scale, bias[:5], relu)
        with pytest.raises(TypeError, match="input must be float32"):
            function(input.double(), weight, scale, bias, relu)
        with pytest.raises(TypeError, match="weight must be float32"):
            function(input, weight.half(), scale, bias, relu)
        with pytest.raises(ValueError, match=r"all tensors must lie on one device, got .*bias on meta"):
            function(input, weight, scale, bias.to("meta"), relu)
    grad, output, *rest = ConvCase("faults", relu=True).backward_arguments()
    for function in (BACKWARD, plain_kernel("winograd_conv_backward")):
        with pytest.raises(ValueError, match="grad must have the shape"):
            function(grad[:, :16], output, *rest)
        with pytest.raises(ValueError, match="output must have the shape"):
            function(grad, output[:, :, 1:], *rest)
