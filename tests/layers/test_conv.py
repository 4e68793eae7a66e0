"""layers.Conv2d against nn.Conv2d in float64: whichever way it takes, the results are the same but for rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark import layers, ops
from maskrcnn_benchmark.layers.batch_norm import conv_norm
from maskrcnn_benchmark.layers.conv import allow_winograd, conv_relu

LAYERS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "3x3, strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "3x3, dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "3x3, groups": {"kernel_size": 3, "padding": 1, "groups": 2},
    "3x3, reflected": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "3x3, no padding": {"kernel_size": 3},
    "1x1": {"kernel_size": 1},
    "1x1, strided": {"kernel_size": 1, "stride": 2},
    "1x1, no bias": {"kernel_size": 1, "bias": False},
    "1x1, padded": {"kernel_size": 1, "padding": 1},
    "7x7": {"kernel_size": 7, "padding": 3, "stride": 2},
}


def make(name, memory_format=torch.channels_last):
    torch.manual_seed(0)
    conv = layers.Conv2d(64, 64, **LAYERS[name]).to(memory_format=memory_format)
    allow_winograd(conv, True)
    return conv


def ordinary(conv):
    """The same parameters in an nn.Conv2d of float64."""
    options = {name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}
    twin = nn.Conv2d(64, 64, conv.kernel_size, bias=conv.bias is not None, **options)
    twin.load_state_dict(conv.state_dict())
    return twin.double()


def assert_near(found, expected):
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-5 * expected.abs().max().item())


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("name", LAYERS)
def test_output_and_gradients(name, memory_format):
    conv = make(name, memory_format)
    twin = ordinary(conv)
    x = torch.randn(1, 64, 35, 41).contiguous(memory_format=memory_format)
    leaves = [x.requires_grad_(), *conv.parameters()]
    exact = [x.detach().double().requires_grad_(), *twin.parameters()]
    output, expected = conv(x), twin(exact[0])
    assert_near(output, expected)
    assert output.is_contiguous(memory_format=memory_format)
    with torch.no_grad():
        assert_near(conv(x, relu=True), F.relu(expected))
    grad = torch.randn(output.shape)
    found = torch.autograd.grad(output, leaves, grad)
    for mine, theirs in zip(found, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        assert_near(mine, theirs)


@pytest.mark.parametrize("name", ["3x3", "1x1", "3x3, strided"])
def test_relu_lets_the_gradient_of_positive_outputs_through(name):
    conv, x = make(name), torch.randn(1, 64, 35, 41).contiguous(memory_format=torch.channels_last)
    plain = copy.deepcopy(conv)
    output = conv_relu(conv, x)
    grad = torch.randn(output.shape)
    output.backward(grad)
    plain(x).backward(grad * (output > 0))
    torch.testing.assert_close(conv.weight.grad, plain.weight.grad)
    torch.testing.assert_close(conv.bias.grad, plain.bias.grad)


@pytest.mark.parametrize("name", ["3x3", "1x1, no bias"])
@pytest.mark.parametrize("relu", [False, True])
def test_frozen_norm_is_folded(name, relu):
    conv, norm = make(name), layers.FrozenBatchNorm2d(64)
    conv.bias = None
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 2)
    x = torch.randn(1, 64, 40, 30).contiguous(memory_format=torch.channels_last)
    expected = norm.double()(ordinary(conv)(x.double()))
    expected = F.relu(expected) if relu else expected
    assert_near(conv_norm(x, conv, norm.float(), relu=relu), expected)


def test_only_what_is_switched_on_and_pays_multiplies_less(monkeypatch):
    calls = []
    monkeypatch.setattr(layers.conv, "winograd_conv", lambda x, *_, **__: calls.append(x.shape) or x)
    monkeypatch.setattr(layers.conv, "winograd_pays", lambda x, _: x.shape[2] > 10)
    x = torch.randn(1, 64, 35, 41)
    for name in LAYERS:
        make(name)(x)
    assert calls == [x.shape]
    make("3x3")(x[:, :, :9])
    off = make("3x3")
    allow_winograd(off, False)
    off(x)
    layers.Conv2d(64, 64, 3, padding=1)(x)
    assert len(calls) == 1


def test_exported_programs_hold_the_ordinary_convolution():
    model = nn.Sequential(make("3x3"), make("1x1")).eval()
    x = torch.randn(1, 64, 40, 40).contiguous(memory_format=torch.channels_last)
    program = torch.export.export(model, (x,))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert targets == {"aten.conv2d.default"}
    assert_near(program.module()(x), nn.Sequential(*map(ordinary, model))(x.double()))


def test_compiled_without_graph_breaks():
    model = nn.Sequential(make("3x3"), make("1x1"))
    x = torch.randn(1, 64, 40, 40).contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


def test_copies_and_loaded_weights_count_at_once():
    conv, x = make("3x3"), torch.randn(1, 64, 40, 40)
    before = conv(x)
    twin = copy.deepcopy(conv)
    assert twin.winograd
    assert torch.equal(twin(x), before)
    twin.load_state_dict({name: 2 * value for name, value in conv.state_dict().items()})
    torch.testing.assert_close(twin(x), 2 * before)
    assert list(conv.state_dict()) == ["weight", "bias"]


def test_half_precision_is_left_to_autocast():
    conv, x = make("3x3"), torch.randn(1, 64, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
        assert make("1x1")(x.contiguous(memory_format=torch.channels_last)).dtype == torch.bfloat16
    assert "winograd_conv" in ops.backend_info()["kernels"]
