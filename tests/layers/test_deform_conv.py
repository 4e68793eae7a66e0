from __future__ import annotations

import pytest
import torch
from torch import nn

from maskrcnn_benchmark import layers
from maskrcnn_benchmark.layers.batch_norm import conv_norm
from maskrcnn_benchmark.ops.deform_conv import deform_conv


def shapes_of(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_published_names_and_shapes():
    assert shapes_of(layers.DeformConv(4, 6, 3)) == {"weight": (6, 4, 3, 3)}
    assert shapes_of(layers.ModulatedDeformConv(4, 6, (3, 2), groups=2)) == {"weight": (6, 2, 3, 2), "bias": (6,)}
    assert shapes_of(layers.ModulatedDeformConvPack(4, 6, 3, deformable_groups=2, bias=False)) == {
        "weight": (6, 4, 3, 3),
        "conv_offset_mask.weight": (54, 4, 3, 3),
        "conv_offset_mask.bias": (54,),
    }
    for modulated, channels in ((False, 18), (True, 27)):
        assert shapes_of(layers.DFConv2d(4, 6, modulated)) == {
            "offset.weight": (channels, 4, 3, 3),
            "offset.bias": (channels,),
            "conv.weight": (6, 4, 3, 3),
        }


def test_functions_take_their_arguments_in_the_published_order():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 4, 7, 8), torch.randn(6, 2, 3, 3), torch.randn(6)
    offset, mask = torch.randn(2, 36, 4, 4), torch.rand(2, 18, 4, 4)
    expected = deform_conv(
        x, weight, offset, mask, bias, stride=(2, 2), padding=(2, 1), dilation=(2, 1), groups=2, deformable_groups=2
    )
    result = layers.modulated_deform_conv(x, offset, mask, weight, bias, 2, (2, 1), (2, 1), 2, 2)
    assert torch.equal(result, expected)
    plain = layers.deform_conv(x, offset, weight, 2, (2, 1), (2, 1), 2, 2)
    ones = layers.modulated_deform_conv(x, offset, torch.ones_like(mask), weight, None, 2, (2, 1), (2, 1), 2, 2)
    torch.testing.assert_close(plain, ones)


def test_pack_starts_as_half_a_convolution_and_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    pack = layers.ModulatedDeformConvPack(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, deformable_groups=2)
    nn.init.normal_(pack.bias)
    x = torch.randn(2, 4, 9, 8)
    expected = torch.conv2d(x, pack.weight / 2, pack.bias, 2, 2, 2, 2)
    torch.testing.assert_close(pack(x), expected)
    pack(x).square().sum().backward()
    for name, parameter in pack.named_parameters():
        assert parameter.grad.flatten(1 if parameter.dim() > 1 else 0).abs().sum(-1).ne(0).all(), name


@pytest.mark.parametrize("modulated", [False, True])
def test_dfconv_splits_what_it_predicts(modulated):
    torch.manual_seed(0)
    conv = layers.DFConv2d(4, 6, modulated, kernel_size=(3, 5), stride=(1, 2), dilation=(2, 1), deformable_groups=2)
    x = torch.randn(2, 4, 7, 8)
    predicted = torch.conv2d(x, conv.offset.weight, conv.offset.bias, (1, 2), (2, 2), (2, 1))
    assert predicted.shape == (2, 90 if modulated else 60, 7, 4)
    options = {"stride": (1, 2), "padding": (2, 2), "dilation": (2, 1), "deformable_groups": 2}
    mask = predicted[:, 60:].sigmoid() if modulated else None
    torch.testing.assert_close(conv(x), deform_conv(x, conv.conv.weight, predicted[:, :60], mask, **options))


@pytest.mark.parametrize("modulated", [False, True])
def test_frozen_norm_folds_into_the_weight_and_not_into_the_offsets(modulated):
    torch.manual_seed(0)
    conv, norm = layers.DFConv2d(4, 6, modulated).double(), layers.FrozenBatchNorm2d(6).double()
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 1.5)
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    folded, apart = conv_norm(x, conv, norm), norm(conv(x))
    torch.testing.assert_close(folded, apart)
    grads = (torch.autograd.grad(result.square().sum(), list(conv.parameters())) for result in (folded, apart))
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="4 channels do not divide into deformable_groups = 3"):
        layers.DFConv2d(4, 6, deformable_groups=3)
    with pytest.raises(ValueError, match="6 channels do not divide into groups = 4"):
        layers.DeformConv(4, 6, 3, groups=4)
    with pytest.raises(ValueError, match="DeformConv has no bias"):
        layers.DFConv2d(4, 6, with_modulated_dcn=False, bias=True)


def test_hyper_parameters_are_shown():
    text = repr(layers.ModulatedDeformConv(4, 6, 3, deformable_groups=2))
    assert text.startswith("ModulatedDeformConv(4, 6, kernel_size=(3, 3), stride=(1, 1)")
    assert text.endswith("deformable_groups=2, bias=True)")
