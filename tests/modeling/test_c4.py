"""C4 and C5: a single map, res5 on pooled regions, and a mask head that takes the box head's features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.layers import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.backbone.resnet import ARCHITECTURES, ResNet, ResNetHead
from maskrcnn_benchmark.modeling.poolers import boxlists_to_rois
from maskrcnn_benchmark.modeling.roi_heads.box_head.roi_box_predictors import FastRCNNPredictor, FPNPredictor
from maskrcnn_benchmark.solver import make_optimizer
from maskrcnn_benchmark.structures.targets import Targets
from tests.modeling.host_reads import HostReads
from tests.modeling.test_detector import LOSSES, build, make_batch, make_cfg, make_target
from tests.modeling.test_no_host_reads import losses_of_fakes, make_step, packed_batch

C4 = {
    "MODEL__BACKBONE__CONV_BODY": "R-50-C4",
    "MODEL__BACKBONE__OUT_CHANNELS": 32,
    "MODEL__RESNETS__TRANS_FUNC": "BottleneckWithFixedBatchNorm",
    "MODEL__RESNETS__RES2_OUT_CHANNELS": 8,
    "MODEL__RESNETS__STEM_OUT_CHANNELS": 8,
    "MODEL__RESNETS__WIDTH_PER_GROUP": 4,
    "MODEL__RPN__USE_FPN": False,
    "MODEL__RPN__ANCHOR_STRIDE": (16,),
    "MODEL__RPN__POST_NMS_TOP_N_TRAIN": 60,
    "MODEL__RPN__POST_NMS_TOP_N_TEST": 30,
    "MODEL__ROI_HEADS__USE_FPN": False,
    "MODEL__ROI_HEADS__SCORE_THRESH": 0.0,
    "MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION": 14,
    "MODEL__ROI_BOX_HEAD__POOLER_SCALES": (1 / 16,),
    "MODEL__ROI_BOX_HEAD__POOLER_SAMPLING_RATIO": 0,
    "MODEL__ROI_BOX_HEAD__FEATURE_EXTRACTOR": "ResNet50Conv5ROIFeatureExtractor",
    "MODEL__ROI_BOX_HEAD__PREDICTOR": "FastRCNNPredictor",
    "MODEL__ROI_MASK_HEAD__FEATURE_EXTRACTOR": "ResNet50Conv5ROIFeatureExtractor",
    "MODEL__ROI_MASK_HEAD__POOLER_RESOLUTION": 14,
    "MODEL__ROI_MASK_HEAD__POOLER_SCALES": (1 / 16,),
    "MODEL__ROI_MASK_HEAD__POOLER_SAMPLING_RATIO": 0,
    "MODEL__ROI_MASK_HEAD__RESOLUTION": 14,
    "MODEL__ROI_MASK_HEAD__SHARE_BOX_FEATURE_EXTRACTOR": True,
}
OWN = {"MODEL__ROI_MASK_HEAD__SHARE_BOX_FEATURE_EXTRACTOR": False}
FIXED = {"MODEL__ROI_MASK_HEAD__FIXED_SLOTS": True}


def build_c4(**changes):
    model = build(**(C4 | changes))
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.8, 1.2)
    return model


@pytest.mark.parametrize("name", ["R-18", "R-50"])
@pytest.mark.parametrize(
    ("suffix", "dilation", "index", "stride"), [("C4", 1, 2, 16), ("C5", 1, 3, 32), ("C5", 2, 3, 16)]
)
def test_a_backbone_with_one_map_gives_the_stage_of_the_whole_network(name, suffix, dilation, index, stride):
    block = "BasicBlock" if name == "R-18" else "Bottleneck"
    changes = C4 | {
        "MODEL__BACKBONE__CONV_BODY": f"{name}-{suffix}",
        "MODEL__BACKBONE__OUT_CHANNELS": 8 * 2**index,
        "MODEL__RESNETS__TRANS_FUNC": f"{block}WithFixedBatchNorm",
        "MODEL__RESNETS__RES5_DILATION": dilation,
    }
    backbone = build_backbone(make_cfg(**changes))
    whole = ResNet(
        ARCHITECTURES[name],
        stem_norm=FrozenBatchNorm2d,
        block_norm=FrozenBatchNorm2d,
        stem_out_channels=8,
        res2_out_channels=8,
        width_per_group=4,
        res5_dilation=dilation,
    )
    _, unexpected = whole.load_state_dict(backbone.body.state_dict(), strict=False)
    assert not unexpected
    images = torch.randn(1, 3, 96, 64)
    (features,) = backbone(images)
    assert features.shape == (1, backbone.out_channels, 96 // stride, 64 // stride)
    assert torch.equal(features, whole(images)[index])


@pytest.mark.parametrize("dilation", [1, 2])
def test_res5_on_regions_is_res5_of_the_network(dilation):
    body = ResNet(
        ARCHITECTURES["R-50"],
        stem_norm=FrozenBatchNorm2d,
        block_norm=FrozenBatchNorm2d,
        res2_out_channels=16,
        width_per_group=4,
        res5_dilation=dilation,
    )
    head = ResNetHead(
        ARCHITECTURES["R-50"], norm=FrozenBatchNorm2d, res2_out_channels=16, width_per_group=4, dilation=dilation
    )
    head.layer4.load_state_dict(body.layer4.state_dict())
    regions = torch.randn(3, head.in_channels, 14, 14)
    out = head(regions)
    assert torch.equal(out, body.layer4(regions))
    assert out.shape == (3, head.out_channels, *[14 // (2 if dilation == 1 else 1)] * 2)


def test_fast_rcnn_predictor_takes_the_mean_of_each_map():
    predictor, plain = FastRCNNPredictor(6, 3), FPNPredictor(6, 3)
    plain.load_state_dict(predictor.state_dict())
    maps = torch.randn(5, 6, 7, 7)
    for output, expected in zip(predictor(maps), plain(maps.double().mean((2, 3)).float()), strict=True):
        torch.testing.assert_close(output, expected)


def test_the_shared_extractor_has_two_names_and_is_trained_once():
    model = build_c4()
    state = model.state_dict()
    prefix = "feature_extractor.head.layer4.0.conv1.weight"
    assert state[f"roi_heads.box.{prefix}"].data_ptr() == state[f"roi_heads.mask.{prefix}"].data_ptr()
    optimizer = make_optimizer(make_cfg(**C4), model)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(parameters) == len(trained)
    assert {id(p) for p in parameters} == trained


@pytest.mark.parametrize("fixed", [{}, FIXED])
def test_the_mask_head_trains_on_the_features_of_the_positives(fixed):
    model = build_c4(**fixed)
    images, targets = make_batch()
    targets = Targets.from_boxlists(targets)
    features = model.backbone(images.tensors)
    proposals, _ = model.rpn(images, features, targets)
    torch.manual_seed(4)
    regions, box_features, _ = model.roi_heads.box.losses(features, proposals, targets)
    assert (regions.labels > 0).any(1).all()
    mask = model.roi_heads.mask
    (shared,) = mask.losses(features, regions, targets, box_features).values()
    (again,) = mask.losses(features, regions, targets).values()  # pools the positives anew
    torch.testing.assert_close(shared, again)
    weight = mask.feature_extractor.head.layer4[0].conv1.weight
    one, other = (torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (shared, again))
    assert one.any()
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("keys", "runs"), [({}, 1), (OWN, 2)])
def test_a_training_step_runs_a_shared_extractor_once(keys, runs):
    model = build_c4(**keys)
    calls = []
    for extractor in {model.roi_heads.box.feature_extractor, model.roi_heads.mask.feature_extractor}:
        extractor.register_forward_hook(lambda *_: calls.append(1))
    model(*make_batch())
    assert len(calls) == runs


@pytest.mark.parametrize("empty", [(), (0,), (0, 1)])
def test_fixed_slots_equal_the_compact_form(empty):
    images, targets = make_batch()
    for i in empty:
        targets[i] = make_target([], [], targets[i].size)
    results = []
    for changes in ({}, FIXED):
        model = build_c4(**changes)
        torch.manual_seed(3)
        losses = model(images, targets)
        assert set(losses) == LOSSES
        sum(losses.values()).backward()
        results.append((losses, model.roi_heads.box.feature_extractor.head.layer4[0].conv1.weight.grad))
    (expected, gradient), (losses, fixed_gradient) = results
    assert (losses["loss_mask"] > 0) == (len(empty) < 2)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-7)
    assert (fixed_gradient - gradient).norm() <= 1e-5 * gradient.norm()


def test_a_step_with_fixed_slots_reads_nothing():
    model, batch = build_c4(**FIXED), packed_batch()
    step = make_step(model)
    step(*batch, iteration=1)
    with HostReads() as reads:
        step(*batch, iteration=2)
    assert reads.found == []
    assert set(losses_of_fakes(build_c4(**FIXED)).values()) == {()}


def test_masks_of_detections():
    model = build_c4().eval()
    images, _ = make_batch()
    with torch.no_grad():
        found = model(images)
        rois = boxlists_to_rois(found)
        mask = model.roi_heads.mask
        logits = mask.predictor(mask.feature_extractor(model.backbone(images.tensors), rois))
    labels = torch.cat([boxes.get_field("labels") for boxes in found])
    expected = torch.stack([logits[i, label].sigmoid() for i, label in enumerate(labels)])
    masks = torch.cat([boxes.get_field("mask") for boxes in found])
    assert masks.shape == (len(rois), 1, 14, 14)
    torch.testing.assert_close(masks[:, 0], expected)


def test_no_detections():
    model = build_c4(MODEL__ROI_HEADS__SCORE_THRESH=1.0).eval()
    with torch.no_grad():
        found = model(make_batch()[0])
    assert [boxes.get_field("mask").shape for boxes in found] == [(0, 1, 14, 14)] * 2


def test_a_mask_head_of_its_own_pools_as_its_own_keys_say():
    keys = {"MODEL__ROI_MASK_HEAD__POOLER_RESOLUTION": 8, "MODEL__ROI_MASK_HEAD__RESOLUTION": 8}
    model = build_c4(**OWN, **keys)
    box, mask = (head.feature_extractor for head in (model.roi_heads.box, model.roi_heads.mask))
    assert (box.pooler.output_size, mask.pooler.output_size) == ((14, 14), (8, 8))
    assert box.head is not mask.head
    assert model(*make_batch())["loss_mask"].isfinite()


def test_c5_under_heads_that_take_its_map():
    model = build_c4(
        MODEL__BACKBONE__CONV_BODY="R-50-C5",
        MODEL__BACKBONE__OUT_CHANNELS=64,
        MODEL__RPN__ANCHOR_STRIDE=(32,),
        MODEL__MASK_ON=False,
        MODEL__ROI_BOX_HEAD__FEATURE_EXTRACTOR="FPN2MLPFeatureExtractor",
        MODEL__ROI_BOX_HEAD__PREDICTOR="FPNPredictor",
        MODEL__ROI_BOX_HEAD__POOLER_SCALES=(1 / 32,),
    )
    images, targets = make_batch()
    losses = model(images, targets)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        assert all(len(boxes) for boxes in model.eval()(images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MODEL__BACKBONE__OUT_CHANNELS": 1024}, "OUT_CHANNELS is 1024, but R-50-C4 has 32 channels .* to 32"),
        ({"MODEL__BACKBONE__CONV_BODY": "R-18-C4"}, "TRANS_FUNC is Bottleneck.*, but R-18 is made of BasicBlock"),
        (
            {"MODEL__BACKBONE__CONV_BODY": "R-50-C5", "MODEL__BACKBONE__OUT_CHANNELS": 64},
            "takes res4's 32 channels, but the backbone R-50-C5 gives 64; choose one whose name ends in -C4",
        ),
        (
            {"MODEL__ROI_BOX_HEAD__FEATURE_EXTRACTOR": "FPN2MLPFeatureExtractor"}
            | {"MODEL__ROI_BOX_HEAD__PREDICTOR": "FPNPredictor"},
            "ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR is True, but .* FPN2MLPFeatureExtractor gives vectors",
        ),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**(C4 | changes))


def test_group_norm_in_res5():
    model = build_c4(
        MODEL__RESNETS__TRANS_FUNC="BottleneckWithGN",
        MODEL__RESNETS__STEM_FUNC="StemWithGN",
        MODEL__GROUP_NORM__NUM_GROUPS=4,
    )
    norms = [m for m in model.roi_heads.box.feature_extractor.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 10
    sum(model(*make_batch()).values()).backward()
    assert all(norm.weight.grad.any() for norm in norms)
