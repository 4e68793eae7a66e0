"""Residual networks with deformable convolution. The published configs are built and trained in test_all_configs.py."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.layers import DFConv2d
from maskrcnn_benchmark.modeling.backbone.deformable import make_stage_convs
from maskrcnn_benchmark.modeling.backbone.resnet import ResNet, make_stage
from maskrcnn_benchmark.modeling.make_layers import group_norm
from tests.modeling.test_resnet import ARCHITECTURES, build, randomise_norms

NARROW = {"stem_out_channels": 8, "res2_out_channels": 16, "width_per_group": 4}


def make_cfg(name, *overrides):
    cfg = global_cfg.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", name, *overrides])
    return cfg


def test_the_config_chooses_stages_kind_and_groups(repository):
    cfg = global_cfg.clone()
    cfg.merge_from_file(repository / "configs" / "dcn" / "e2e_mask_rcnn_mdconv_R_50_FPN_1x.yaml")
    cfg.merge_from_list(["MODEL.RESNETS.DEFORMABLE_GROUPS", 2])
    with torch.device("meta"):
        body = ResNet.from_config(cfg)
    for stage, deforms in enumerate((False, True, True, True), 1):
        for block in body.get_submodule(f"layer{stage}"):
            assert isinstance(block.conv2, DFConv2d if deforms else nn.Conv2d)
    conv = body.layer3[1].conv2
    assert (conv.with_modulated_dcn, conv.conv.deformable_groups, conv.offset.out_channels) == (True, 2, 54)
    assert body.layer2[0].conv2.conv.bias is None


def test_nothing_deforms_unless_asked_for():
    assert make_stage_convs(make_cfg("R-50-FPN")) == (None,) * 4


@pytest.mark.parametrize("modulated", [False, True])
def test_folded_frozen_norm_equals_batch_norm(modulated):
    convs = (None, *[partial(DFConv2d, with_modulated_dcn=modulated)] * 3)
    frozen = build(stage_convs=convs, **NARROW).double()
    randomise_norms(frozen)
    plain = build(norm=lambda c: nn.BatchNorm2d(c, eps=0.0), stage_convs=convs, **NARROW).double()
    plain.load_state_dict(frozen.state_dict(), strict=False)
    plain.eval()
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    outputs, expected = frozen(x), plain(x)
    for output, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, other)
    names = [name for name, _ in frozen.named_parameters()]
    grads = torch.autograd.grad(sum(output.square().mean() for output in outputs), list(frozen.parameters()))
    wanted = torch.autograd.grad(
        sum(output.square().mean() for output in expected), [plain.get_parameter(name) for name in names]
    )
    for name, grad, want in zip(names, grads, wanted, strict=True):
        assert grad.abs().sum() > 0, name
        torch.testing.assert_close(grad, want)


def test_group_norm_stride_dilation_and_groups_reach_the_convolution():
    stage = make_stage(
        ARCHITECTURES["R-50"],
        3,
        64,
        norm=lambda channels: group_norm(channels, num_groups=4),
        res2_out_channels=16,
        num_groups=2,
        width_per_group=4,
        stride_in_1x1=False,
        make_conv=DFConv2d,
    )
    conv = stage[0].conv2
    assert (conv.conv.stride, conv.offset.stride, conv.conv.groups, conv.offset.groups) == ((2, 2), (2, 2), 2, 1)
    assert stage(torch.randn(1, 64, 9, 11)).shape == (1, 128, 5, 6)
    dilated = make_stage(
        ARCHITECTURES["R-50"], 3, 64, norm=group_norm, res2_out_channels=16, dilation=2, make_conv=DFConv2d
    )
    conv = dilated[0].conv2
    assert (conv.conv.dilation, conv.conv.padding, conv.offset.dilation, conv.offset.padding) == ((2, 2),) * 4
