"""FBNet as a config describes it: architectures, the keys of MODEL.FBNET, the heads."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.layers import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.backbone.fbnet.arch_def import find_architecture
from maskrcnn_benchmark.modeling.backbone.fbnet.architectures import ARCHITECTURES
from maskrcnn_benchmark.modeling.rpn.rpn import build_rpn
from maskrcnn_benchmark.structures.bounding_box import BoxList

# Architectures in the published form: one of the published ones, and one that uses all of it.
XIRB16D = {
    "block_op_type": [["ir_k3"] * n for n in (1, 2, 3, 7, 4, 5, 3)],
    "block_cfg": {
        "first": [16, 2],
        "stages": [
            [[1, 16, 1, 1]],
            [[6, 32, 2, 2]],
            [[6, 48, 3, 2]],
            [[6, 96, 4, 2], [6, 128, 3, 1]],
            [[4, 128, 1, 2], [6, 128, 2, 1], [6, 160, 1, 1]],
            [[4, 128, 1, 2], [6, 128, 2, 1], [6, 128, 1, -2], [3, 64, 1, -2]],
            [[6, 128, 3, 1]],
        ],
        "last": [0, 0.0],
        "backbone": [0, 1, 2, 3],
        "rpn": [6],
        "bbox": [4],
        "mask": [5],
    },
}
TINY = {
    "block_op_type": [["ir_k3_e1"], ["skip"], ["ir_k5", "ir_k3_s4_se", "ir_k3"], ["ir_k3"] * 2],
    "block_cfg": {
        "first": [16, 2, 5],
        "stages": [
            [[1, 16, 1, 2]],
            [[1, 24, 1, 2]],
            [[2, 24, 2, 2], [2, 32, 1, 1]],
            [[2, 24, 1, 1], [2, 16, 1, [-2, -2]]],
        ],
        "last": [40, 1.0],
        "backbone": [0, 1],
        "rpn": [3, 2],
        "head": [2],
        "kpts": [3],
    },
}


def changed(**block_cfg):
    return json.dumps({**TINY, "block_cfg": {**TINY["block_cfg"], **block_cfg}})


def make_cfg(*options, arch=TINY):
    cfg = global_cfg.clone()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.CONV_BODY", "FBNet"])
    if arch is TINY:
        cfg.merge_from_list(["MODEL.FBNET.ARCH", "tiny", "MODEL.RPN.ANCHOR_STRIDE", (8,)])
        cfg.MODEL.FBNET.ARCH_DEF = json.dumps(TINY)
    cfg.merge_from_list([*options])
    return cfg


def box_head(*options, in_channels=24, name="ROI_BOX_FEATURE_EXTRACTORS", entry="FBNet.roi_head"):
    return getattr(registry, name)[entry](make_cfg(*options), in_channels)


def norms_of(module):
    return {type(m) for m in module.modules() if isinstance(m, (nn.modules.batchnorm._NormBase, nn.GroupNorm))} | {
        type(m) for m in module.modules() if isinstance(m, FrozenBatchNorm2d)
    }


def widths(blocks):
    return {name: module.pwl.out_channels for name, module in blocks.named_children()}


def test_the_table_says_what_the_published_form_says():
    assert find_architecture("xirb16d_dsmask", json.dumps(XIRB16D)) == ARCHITECTURES["xirb16d_dsmask"]
    assert sorted(ARCHITECTURES) == ["cham_v1a", "cham_v2", "default", "mobilenet_v2", "xirb16d_dsmask"]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_trunk_has_stride_16(name):
    with torch.device("meta"):
        backbone = build_backbone(make_cfg("MODEL.FBNET.ARCH", name, arch=None))
        (features,) = backbone(torch.zeros(2, 3, 96, 130))
    assert features.shape == (2, backbone.out_channels, 6, 9)


def test_initialisation_is_the_published_one():
    torch.manual_seed(0)
    backbone = build_backbone(make_cfg(arch=None))
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2  # of a depthwise layer too
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.25)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    predictors = registry.RPN_HEADS["FBNet.rpn_head"](make_cfg(arch=None), 96, 15)[1]
    assert predictors.bbox_pred.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not predictors.cls_logits.bias.any()


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("{", "ARCH_DEF is not JSON"),
        ("[]", "must be an object with block_op_type and block_cfg"),
        (changed(first=[16]), r"first must be \[channels, stride\], not \[16\]"),
        (changed(last=3), r"last must be \[channels, scale\], not 3"),
        (changed(stages=TINY["block_cfg"]["stages"][:2]), "an entry for each stage"),
        (changed(stages=[[[1, 16, 1]], *TINY["block_cfg"]["stages"][1:]]), r"stage 0 has \[1, 16, 1\], which is not"),
        (changed(stages=[[[1, 16, 2, 2]], *TINY["block_cfg"]["stages"][1:]]), "each of the 2 blocks of stage 0"),
        (changed(stages=[[[1, 16, 1, 3]], *TINY["block_cfg"]["stages"][1:]]), "ir_k3_e1 cannot have the stride 3"),
        (changed(rpn=[4]), r"rpn must list stages from 0 to 3, not \[4\]"),
        (json.dumps({**TINY, "block_op_type": [["ir_k9"], *TINY["block_op_type"][1:]]}), "unknown op 'ir_k9'; known"),
    ],
)
def test_a_wrong_definition_says_what_is_wrong(definition, message):
    cfg = make_cfg()
    cfg.MODEL.FBNET.ARCH_DEF = definition
    with pytest.raises(ValueError, match=message) as caught:
        build_backbone(cfg)
    assert str(caught.value).startswith("MODEL.FBNET.ARCH_DEF")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.FBNET.ARCH", "huge"], r"MODEL.FBNET.ARCH is 'huge', which is none of default, .*ARCH_DEF"),
        (["MODEL.FBNET.BN_TYPE", "ln"], "MODEL.FBNET.BN_TYPE is 'ln'; known: bn"),
        (["MODEL.FBNET.WIDTH_DIVISOR", 0], "MODEL.FBNET.WIDTH_DIVISOR must be above 0"),
        (["MODEL.RPN.ANCHOR_STRIDE", (8,)], r"ANCHOR_STRIDE is \(8,\), but .* stride 16; set it to \(16,\)"),
    ],
)
def test_a_wrong_key_says_so(options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(make_cfg(*options, arch=None))


def test_a_published_name_keeps_its_meaning():
    cfg = make_cfg("MODEL.FBNET.ARCH", "default")
    with pytest.raises(ValueError, match="differs from the published architecture 'default'; give yours another name"):
        build_backbone(cfg)


def test_widths_are_scaled_and_rounded():
    body = build_backbone(make_cfg("MODEL.FBNET.SCALE_FACTOR", 0.7, "MODEL.FBNET.WIDTH_DIVISOR", 8, arch=None)).body
    assert body.first.out_channels == 24  # 22.4, cut to 22, the nearest multiple of 8
    # 11 -> 8, 16.8 -> 16, 22.4 -> 24, 44.8 -> 48, 67.2 -> 64
    found = list(widths(body.stages).values())
    assert found == [8] + [16] * 2 + [24] * 3 + [48] * 4 + [64] * 3


def test_kinds_of_normalisation():
    groups = ["MODEL.GROUP_NORM.NUM_GROUPS", 8]
    for kind, layer in (("gn", nn.GroupNorm), ("af", FrozenBatchNorm2d)):
        assert norms_of(build_backbone(make_cfg(*groups, "MODEL.FBNET.BN_TYPE", kind))) == {layer}
    cfg = make_cfg(*groups, "MODEL.FBNET.RPN_BN_TYPE", "gn", "MODEL.FBNET.RPN_HEAD_BLOCKS", 1, arch=None)
    assert norms_of(registry.RPN_HEADS["FBNet.rpn_head"](cfg, 96, 3)) == {nn.GroupNorm}
    (plain,) = norms_of(build_backbone(cfg))
    assert issubclass(plain, nn.BatchNorm2d)


def test_frozen_norm_equals_batch_norm_in_evaluation():
    torch.manual_seed(0)
    plain, frozen = (build_backbone(make_cfg("MODEL.FBNET.BN_TYPE", kind)).eval() for kind in ("bn", "af"))
    for name, value in plain.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    state = plain.state_dict()
    frozen.load_state_dict({k: v for k, v in state.items() if not k.endswith("tracked")})
    x = torch.randn(1, 3, 32, 40)
    torch.testing.assert_close(frozen(x)[0], plain(x)[0], rtol=1e-3, atol=1e-4)  # no epsilon in the frozen one


def test_rpn_takes_the_last_blocks():
    cfg = make_cfg("MODEL.FBNET.RPN_HEAD_BLOCKS", 1, "MODEL.RPN.RPN_HEAD", "FBNet.rpn_head", arch=None)
    rpn = build_rpn(cfg, 96)
    assert widths(rpn.head[0].head) == {"xif5_2": 96}
    logits, deltas = rpn.head([torch.zeros(2, 96, 4, 5)] * 2)
    assert [each.shape for each in logits] == [(2, 15, 4, 5)] * 2
    assert [each.shape for each in deltas] == [(2, 60, 4, 5)] * 2


def test_stages_of_a_part_come_in_ascending_order():
    head = registry.RPN_HEADS["FBNet.rpn_head"](make_cfg("MODEL.FBNET.RPN_HEAD_BLOCKS", 0), 24, 3)
    assert [name for name, _ in head[0].head.named_children()] == ["xif2_0", "xif2_1", "xif2_2", "xif3_0", "xif3_1"]
    (logits,), _ = head([torch.randn(2, 24, 6, 8)])
    assert logits.shape == (2, 3, 6, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.FBNET.RPN_HEAD_BLOCKS", 4], "RPN_HEAD_BLOCKS is 4, but .* has 3 blocks"),
        (["MODEL.FBNET.ARCH", "mobilenet_v2"], "'mobilenet_v2' has no stages for the RPN head .* SingleConvRPNHead"),
    ],
)
def test_an_rpn_head_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        registry.RPN_HEADS["FBNet.rpn_head"](make_cfg(*options, arch=None), 96, 15)


def test_blocks_stride_and_last_layer_of_a_region_head():
    whole = box_head()
    assert widths(whole.head.blocks) == {"xif2_0": 24, "xif2_1": 24, "xif2_2": 32}
    assert whole.head.last.conv.weight.shape == (40, 32, 1, 1)
    features = [torch.randn(1, 24, 20, 20)]
    rois = torch.tensor([[0, 10.0, 10.0, 100.0, 90.0]])
    assert whole.eval()(features, rois).shape == (1, whole.out_channels, 7, 7)
    smaller = ["MODEL.FBNET.DET_HEAD_BLOCKS", (0, 2), "MODEL.FBNET.DET_HEAD_STRIDE", 1]
    part = box_head(*smaller, "MODEL.FBNET.DET_HEAD_LAST_SCALE", -0.5)
    assert widths(part.head.blocks) == {"xif2_0": 24, "xif2_2": 32}
    assert part.head.last.conv.weight.shape == (16, 32, 1, 1)
    assert part.eval()(features, [BoxList(rois[:, 1:], (160, 160))]).shape == (1, 16, 14, 14)
    without = box_head("MODEL.FBNET.DET_HEAD_LAST_SCALE", 0.0, "MODEL.FBNET.SCALE_FACTOR", 0.5, in_channels=12)
    assert without.out_channels == 16
    assert not without.head.last.state_dict()


@pytest.mark.parametrize(("key", "value"), [("DET_HEAD_BLOCKS", (9,)), ("DET_HEAD_STRIDE", 4)])
def test_a_region_head_that_cannot_be(key, value):
    with pytest.raises(ValueError, match=f"MODEL.FBNET.{key}"):
        box_head(f"MODEL.FBNET.{key}", value)


def test_keypoint_and_mask_heads():
    keypoints = box_head(name="ROI_KEYPOINT_FEATURE_EXTRACTORS", entry="FBNet.roi_head_keypoints")
    assert widths(keypoints.head.blocks) == {"xif3_0": 24, "xif3_1": 16}
    features, rois = [torch.randn(1, 24, 20, 20)], torch.tensor([[0, 10.0, 10.0, 100.0, 90.0]])
    assert keypoints.eval()(features, rois).shape == (1, 16, 28, 28)
    mask = box_head(name="ROI_MASK_FEATURE_EXTRACTORS", entry="FBNet.roi_head_mask")
    assert widths(mask.head.blocks) == widths(box_head().head.blocks)  # both take the part head


def test_a_part_that_is_not_defined_gets_all_stages(caplog):
    cfg = make_cfg("MODEL.FBNET.ARCH", "cham_v2", arch=None)
    with torch.device("meta"), caplog.at_level("WARNING"):
        head = registry.ROI_MASK_FEATURE_EXTRACTORS["FBNet.roi_head_mask"](cfg, 56)
    assert len(head.head.blocks) == sum(map(len, ARCHITECTURES["cham_v2"].stages))
    assert "no stages for the part 'mask'" in caplog.text


def test_empty_slots_change_nothing():
    torch.manual_seed(0)
    features = [torch.randn(2, 24, 20, 20, requires_grad=True)]
    rois = torch.tensor([[0, 5.0, 5, 90, 60], [-1, 0, 0, 70, 80], [1, 20, 10, 110, 100], [-1, 0, 0, 0, 0]])
    filled = rois[:, 0] >= 0
    state = box_head().state_dict()
    results = []
    for each in (rois, rois[filled]):
        head = box_head()
        head.load_state_dict(state)
        out = head.train()(features, each)
        out = out[filled] if len(out) > len(rois[filled]) else out
        out.square().mean().backward()
        results.append((out, [p.grad for p in head.parameters()], head.state_dict()))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_who_does_not_ask_for_it_does_not_import_it():
    program = (
        "import sys; from maskrcnn_benchmark.modeling.detector import build_detection_model; "
        "sys.exit(any('fbnet' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
