"""FBNet's blocks against loops and formulas, and its batch norm against the plain one of what is there."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.backbone.fbnet.architectures import Block, total_stride
from maskrcnn_benchmark.modeling.backbone.fbnet.blocks import InvertedResidual, Shift, round_width
from maskrcnn_benchmark.modeling.backbone.fbnet.norm import SlotBatchNorm2d
from maskrcnn_benchmark.modeling.backbone.fbnet.ops import OPS, BlockSettings, is_stride_of, make_block

PUBLISHED_OPS = [
    "skip", "ir_k1", "ir_k3", "ir_k5", "ir_k7", "shuffle", "basic_block", "shift_5x5",
    "ir_k3_e1", "ir_k3_e3", "ir_k3_e6", "ir_k3_s4", "ir_k5_e1", "ir_k5_e3", "ir_k5_e6", "ir_k5_s4",
    "ir_k3_e1_se", "ir_k3_e3_se", "ir_k3_e6_se", "ir_k3_s4_se",
    "ir_k5_e1_se", "ir_k5_e3_se", "ir_k5_e6_se", "ir_k5_s4_se",
    "ir_k3_s2", "ir_k5_s2", "ir_k3_s2_se", "ir_k5_s2_se",
    "ir_k3_sep", "ir_k33_e1", "ir_k33_e3", "ir_k33_e6",
    "ir_k7_e1", "ir_k7_e3", "ir_k7_e6", "ir_k7_sep", "ir_k7_sep_e1", "ir_k7_sep_e3", "ir_k7_sep_e6",
]  # fmt: skip
STRIDES = [1, 2, 4, -1, -2, -4, (-2, -1)]


def make(in_channels=8, out_channels=8, **options):
    return InvertedResidual(
        in_channels, out_channels, **{"expansion": 3, "stride": 1, "norm": SlotBatchNorm2d, **options}
    )


def randomise_norms(model):
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
            module.running_mean.data.normal_(std=0.1)
            module.running_var.data.uniform_(0.5, 1.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slot_norm_equals_batch_norm_of_the_filled_slots(dtype):
    torch.manual_seed(0)
    ours, plain = SlotBatchNorm2d(5).to(dtype), nn.BatchNorm2d(5).to(dtype)
    randomise_norms(ours)
    plain.load_state_dict(ours.state_dict())
    valid = torch.tensor([True, False, True, True, False])
    x = (3 + 2 * torch.randn(5, 5, 4, 3, dtype=dtype)).requires_grad_()
    grad = torch.randn(5, 5, 4, 3, dtype=dtype) * valid[:, None, None, None]
    for _ in range(2):
        out, expected = ours(x, valid), plain(x[valid])
        torch.testing.assert_close(out[valid], expected)
    found = torch.autograd.grad(out, (x, *ours.parameters()), grad)
    wanted = torch.autograd.grad(expected, (x, *plain.parameters()), grad[valid])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())
    torch.testing.assert_close(ours.eval()(x, valid), plain.eval()(x))


@pytest.mark.parametrize("num_slots", [0, 3])
def test_slot_norm_learns_nothing_from_empty_slots(num_slots):
    norm = SlotBatchNorm2d(4)
    out = norm(torch.randn(num_slots, 4, 2, 2), torch.zeros(num_slots, dtype=torch.bool))
    assert out.shape == (num_slots, 4, 2, 2)
    assert out.isfinite().all()
    assert not norm.running_mean.any()
    assert (norm.running_var == 1).all()


def test_slot_norm_sums_half_precision_in_single():
    values = 30 + torch.randn(512, 1, 8, 8)
    out = SlotBatchNorm2d(1)(values.half(), torch.ones(512, dtype=torch.bool))
    assert out.dtype == torch.float16
    expected = (values.half().float() - values.half().float().mean()) / values.half().float().std()
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("divisor", [1, 3, 8])
def test_round_width(divisor):
    for width in range(1, 100):
        nearest = math.floor(width / divisor + 0.5) * divisor
        assert round_width(width, divisor) == (width if width % divisor == 0 else nearest or divisor**2)


@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (16, 1), (8, 2)])
def test_inverted_residual_by_its_formula(channels, stride):
    torch.manual_seed(0)
    block = make(8, channels, stride=stride, kernel_size=5)
    randomise_norms(block)
    x = torch.randn(3, 8, 9, 12)

    def normalised(y, norm):
        y = (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        return y * norm.weight[:, None, None] + norm.bias[:, None, None]

    y = normalised(torch.einsum("oi,nihw->nohw", block.pw.conv.weight[:, :, 0, 0], x), block.pw.bn).relu()
    windows = F.pad(y, (2, 2, 2, 2)).unfold(2, 5, stride).unfold(3, 5, stride)
    y = torch.einsum("nchwij,cij->nchw", windows, block.dw.conv.weight[:, 0])
    y = normalised(y, block.dw.bn).relu()
    y = normalised(torch.einsum("oi,nihw->nohw", block.pwl.conv.weight[:, :, 0, 0], y), block.pwl.bn)
    if channels == 8 and stride == 1:
        y = y + x
    torch.testing.assert_close(block(x), y, rtol=1e-4, atol=1e-5)


def test_negative_stride_repeats_pixels():
    torch.manual_seed(0)
    larger, plain = make(8, 6, stride=(-2, -4)), make(8, 6)
    randomise_norms(plain)
    larger.load_state_dict(plain.state_dict())
    x = torch.randn(2, 8, 3, 5)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(larger.eval()(x), plain.eval()(repeated))


def test_shuffle_deals_the_channels_of_each_group():
    block = make(4, 6, groups=2, kernel_size=1, expansion=2).eval()
    x = torch.randn(1, 4, 2, 2)
    inner = block.pw(x)
    dealt = torch.stack([inner[:, i // 2 + (i % 2) * 4] for i in range(8)], dim=1)
    torch.testing.assert_close(block(x), block.pwl(dealt))


def test_depthwise_layers_that_are_left_out():
    names = {n.rsplit(".", 1)[0] for n, _ in make(num_depthwise=2, skip_norm=True).named_parameters()}
    assert names == {"pw.conv", "pw.bn", "dw.dw1.conv", "dw.dw1.bn", "dw.dw2.conv", "pwl.conv", "pwl.bn"}
    assert make(kernel_size=1).eval()(torch.randn(1, 8, 4, 4)).shape == (1, 8, 4, 4)
    x = torch.randn(2, 24, 4, 4)
    assert (make(skip_relu=True).dw(x) < 0).any()
    assert (make().dw(x) >= 0).all()


def test_shift_equals_loops():
    shift = Shift(60, 5, stride=1)
    x = torch.randn(1, 60, 6, 7)
    padded = F.pad(x, (2, 2, 2, 2))
    channel = 0
    out = shift(x)
    for i in range(5):
        for j in range(5):
            count = 60 // 25 + (60 % 25 if (i, j) == (2, 2) else 0)
            for _ in range(count):
                assert torch.equal(out[0, channel], padded[0, channel, i : i + 6, j : j + 7])
                channel += 1
    assert channel == 60
    assert not shift.kernel.requires_grad


def test_ops_are_the_published_ones():
    assert sorted(OPS) == sorted(PUBLISHED_OPS)


def check_op(op, stride, out_channels):
    block = Block(op, 2, out_channels, stride)
    module = make_block(block, 16, out_channels, BlockSettings(norm=SlotBatchNorm2d))
    down, across = total_stride([block])
    y = module(torch.randn(2, 16, 4, 4, requires_grad=True), torch.tensor([True, False]))
    assert y.shape == (2, out_channels, 4 / down, 4 / across)
    (y[0] * torch.randn_like(y[0])).sum().backward()
    assert all(p.grad.any() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize("op", PUBLISHED_OPS)
def test_every_op_trains(op):
    check_op(op, 1, 16)
    check_op(op, 1, 24)


@pytest.mark.parametrize(
    ("op", "strides"),
    [
        ("ir_k1", [1, -1, -2, -4, (-2, -1)]),
        ("ir_k33_e1", STRIDES),
        ("skip", [1, 2, 4]),
        ("basic_block", [1, 2]),
        ("shift_5x5", [1, 2]),
    ],
)
def test_strides_of_ops(op, strides):
    assert [stride for stride in STRIDES if is_stride_of(op, stride)] == strides
    for stride in strides:
        if stride != 4:  # one pixel has no statistics
            check_op(op, stride, 16)


def test_squeeze_excite_scales_by_the_means():
    block = make(8, 40, squeeze_excite=True).eval()
    plain = make(8, 40)
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if not k.startswith("se4")})
    x = torch.randn(2, 8, 4, 4)
    y = plain.eval()(x)
    _, reduce, _, restore, _ = block.se4.op
    means = y.mean((2, 3))
    gate = torch.sigmoid(F.linear(F.linear(means, reduce.weight.flatten(1), reduce.bias).relu(),
                                  restore.weight.flatten(1), restore.bias))  # fmt: skip
    assert reduce.out_channels == 10
    torch.testing.assert_close(block(x), y * gate[:, :, None, None])
