"""With channels_last images and weights no layer gets an activation in another order: nothing is copied on the way."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from maskrcnn_benchmark.structures.targets import Targets
from tests.modeling.test_detector import build, make_batch

GROUP_NORM = {
    "MODEL__FPN__USE_GN": True,
    "MODEL__ROI_MASK_HEAD__USE_GN": True,
    "MODEL__GROUP_NORM__NUM_GROUPS": 8,
}
_CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default}


def is_channels_last(tensor):
    """Whether the channels of a pixel are neighbours in memory; with one channel or one pixel any order is right."""
    _, channels, height, width = tensor.shape
    return tensor.stride(1) == 1 or channels == 1 or height * width == 1 or tensor.numel() == 0


class Layouts(TorchDispatchMode):
    """The 4-d operands of convolutions, and the 4-d inputs of all layers with a name."""

    def __init__(self, model):
        super().__init__()
        self.operands, self.inputs = [], []
        for name, module in model.named_modules():
            if not list(module.children()):
                module.register_forward_pre_hook(self.note(name))

    def note(self, name):
        def hook(module, args):
            self.inputs += [(name, is_channels_last(each)) for each in args if getattr(each, "ndim", 0) == 4]

        return hook

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in _CONVOLUTIONS:
            tensors = [each for each in args if isinstance(each, torch.Tensor) and each.ndim == 4]
            self.operands += [(func, tuple(each.shape), is_channels_last(each)) for each in tensors]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"MODEL__ROI_MASK_HEAD__FIXED_SLOTS": True}, GROUP_NORM])
def test_every_layer_of_a_training_step(changes, dtype):
    model = build(**changes).to(memory_format=torch.channels_last)
    images, boxlists = make_batch()
    images = images.to(memory_format=torch.channels_last)
    layouts = Layouts(model)
    with layouts, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        sum(model(images, Targets.from_boxlists(boxlists)).values()).backward()
    names = {name for name, _ in layouts.inputs}
    assert {"backbone.fpn.fpn_inner1.0" if changes is GROUP_NORM else "backbone.fpn.fpn_inner1"} <= names
    assert {"rpn.head.conv", "rpn.head.cls_logits", "roi_heads.mask.predictor.conv5_mask"} <= names
    assert [name for name, fits in layouts.inputs if not fits] == []
    assert len(layouts.operands) > 100
    assert [row for row in layouts.operands if not row[2]] == []


def test_every_layer_of_an_inference():
    model = build(MODEL__ROI_HEADS__SCORE_THRESH=0.0).to(memory_format=torch.channels_last).eval()
    images = make_batch()[0].to(memory_format=torch.channels_last)
    layouts = Layouts(model)
    with torch.no_grad(), layouts:
        model(images)
    assert [name for name, fits in layouts.inputs if not fits] == []
    assert [row for row in layouts.operands if not row[2]] == []


def test_another_order_is_found():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    layouts = Layouts(model)
    with layouts:
        model(torch.rand(1, 3, 8, 8))
    assert layouts.inputs == [("0", False)]
    assert [fits for _, _, fits in layouts.operands] == [False, False]
