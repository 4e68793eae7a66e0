from __future__ import annotations

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.layers import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.backbone.fpn import FPN, LastLevelMaxPool
from maskrcnn_benchmark.modeling.backbone.resnet import ARCHITECTURES, ResNet
from maskrcnn_benchmark.modeling.make_layers import conv_with_kaiming_uniform, group_norm


def build(name="R-50", norm=FrozenBatchNorm2d, **options):
    torch.manual_seed(0)
    return ResNet(ARCHITECTURES[name], stem_norm=norm, block_norm=norm, **options)


def randomise_norms(model):
    for module in model.modules():
        if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d)):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
            module.running_mean.data.normal_(std=0.1)
            module.running_var.data.uniform_(0.5, 1.5)


@pytest.mark.parametrize(("name", "channels"), [("R-18", 64), ("R-50", 256)])
def test_folded_frozen_norm_equals_batch_norm(name, channels):
    frozen = build(name, res2_out_channels=channels).double()
    randomise_norms(frozen)
    plain = build(name, norm=lambda c: nn.BatchNorm2d(c, eps=0.0), res2_out_channels=channels).double()
    missing, unexpected = plain.load_state_dict(frozen.state_dict(), strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    plain.eval()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    outputs, expected = frozen(x), plain(x)
    for output, other, stride in zip(outputs, expected, (4, 8, 16, 32), strict=True):
        assert output.shape[2:] == (64 // stride, 96 // stride)
        torch.testing.assert_close(output, other)
    grads = torch.autograd.grad(sum(o.square().mean() for o in outputs), frozen.layer4[0].conv1.weight)
    expected_grads = torch.autograd.grad(sum(o.square().mean() for o in expected), plain.layer4[0].conv1.weight)
    torch.testing.assert_close(grads, expected_grads)


def test_frozen_parts_run_without_autograd():
    model = build(freeze_at=2)
    stem = model.stem(torch.randn(1, 3, 32, 32))
    assert not model.layer1(stem).requires_grad
    assert model.layer2(model.layer1(stem)).requires_grad
    frozen = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "layer1"}


def test_stride_place_and_dilation():
    strides = {flag: build(stride_in_1x1=flag).layer2[0] for flag in (True, False)}
    assert (strides[True].conv1.stride, strides[True].conv2.stride) == ((2, 2), (1, 1))
    assert (strides[False].conv1.stride, strides[False].conv2.stride) == ((1, 1), (2, 2))
    dilated = build(res5_dilation=2)
    outputs = dilated(torch.randn(1, 3, 64, 64))
    assert outputs[3].shape[2:] == outputs[2].shape[2:]


def test_pyramid_by_hand():
    fpn = FPN([1, 1], 1, conv_with_kaiming_uniform(), top_blocks=LastLevelMaxPool())
    for name, parameter in fpn.named_parameters():
        parameter.data.zero_()
        if name.endswith("weight"):  # the centre tap alone: every layer is the identity
            parameter.data[..., parameter.shape[2] // 2, parameter.shape[3] // 2] = 1
    fine, coarse = torch.randn(1, 1, 4, 6), torch.randn(1, 1, 2, 3)
    levels = fpn([fine, coarse])
    torch.testing.assert_close(levels[0], fine + coarse.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(levels[1], coarse)
    torch.testing.assert_close(levels[2], coarse[:, :, ::2, ::2])


def test_group_norm_settings():
    assert group_norm(64).num_groups == 32
    assert group_norm(64, num_groups=-1, dim_per_gp=16).num_groups == 4
    with pytest.raises(ValueError, match="exactly one of NUM_GROUPS"):
        group_norm(64, num_groups=32, dim_per_gp=16)
    with pytest.raises(ValueError, match="48 channels do not divide into 32 groups"):
        group_norm(48)
