"""The whole network on small inputs: losses, gradients, empty images, batching, third-party parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from maskrcnn_benchmark.structures.targets import Targets

SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.CONV_BODY": "R-18-FPN",
    "MODEL.BACKBONE.OUT_CHANNELS": 32,
    "MODEL.RESNETS.TRANS_FUNC": "BasicBlockWithFixedBatchNorm",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RPN.USE_FPN": True,
    "MODEL.RPN.ANCHOR_STRIDE": (4, 8, 16, 32, 64),
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 200,
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": 100,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 50,
    "MODEL.ROI_HEADS.USE_FPN": True,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 64,
    "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": 20,
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 4,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.POOLER_SCALES": (0.25, 0.125, 0.0625, 0.03125),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPN2MLPFeatureExtractor",
    "MODEL.ROI_BOX_HEAD.PREDICTOR": "FPNPredictor",
    "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": 64,
    "MODEL.ROI_MASK_HEAD.POOLER_SCALES": (0.25, 0.125, 0.0625, 0.03125),
    "MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR": "MaskRCNNFPNFeatureExtractor",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_MASK_HEAD.CONV_LAYERS": (32, 32),
    "MODEL.ROI_MASK_HEAD.RESOLUTION": 28,
    "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR": False,
}


def make_cfg(**changes):
    cfg = default_cfg.clone()
    settings = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    cfg.merge_from_list([item for pair in settings.items() for item in pair])
    return cfg


def build(**changes):
    torch.manual_seed(0)
    return build_detection_model(make_cfg(**changes))


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def make_target(boxes, labels, size=(128, 96)):
    target = BoxList(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), size, "xyxy")
    target.add_field("labels", torch.tensor(labels, dtype=torch.int64))
    polygons = [[square(x1, y1, x2 - x1)] for x1, y1, x2, _ in boxes]
    target.add_field("masks", SegmentationMask(polygons, size, mode="poly"))
    return target


def make_batch():
    torch.manual_seed(1)
    images = to_image_list([50 * torch.randn(3, 96, 128), 50 * torch.randn(3, 90, 120)], 32)
    targets = [
        make_target([[10, 10, 50, 50], [60, 20, 90, 50]], [1, 3]),
        make_target([[30, 30, 70, 70]], [2], (120, 90)),
    ]
    return images, targets


LOSSES = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"}


@pytest.mark.parametrize(
    ("stem", "block"),
    [
        ("StemWithFixedBatchNorm", "BasicBlockWithFixedBatchNorm"),
        ("StemWithBatchNorm", "BasicBlockWithBatchNorm"),
    ],
)
def test_every_trainable_parameter_gets_a_gradient(stem, block):
    # all anchors are sampled, those of the coarse levels are larger than the image
    everything = {"MODEL__RPN__BATCH_SIZE_PER_IMAGE": 10**6, "MODEL__RPN__STRADDLE_THRESH": -1}
    model = build(MODEL__RESNETS__STEM_FUNC=stem, MODEL__RESNETS__TRANS_FUNC=block, **everything)
    images, targets = make_batch()
    losses = model(images, targets)
    assert set(losses) == LOSSES
    assert all(loss.dim() == 0 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_targets_and_boxlists_give_the_same_losses():
    model = build()
    images, targets = make_batch()
    torch.manual_seed(5)
    from_lists = model(images, targets)
    torch.manual_seed(5)
    packed = model(images, Targets.from_boxlists(targets))
    assert {k: v.item() for k, v in from_lists.items()} == {k: v.item() for k, v in packed.items()}


@pytest.mark.parametrize("empty", [(0,), (1,), (0, 1)])
def test_images_without_objects_train(empty):
    model = build()
    images, targets = make_batch()
    for i in empty:
        targets[i] = make_target([], [], targets[i].size)
    losses = model(images, targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    if len(empty) == 2:
        assert losses["loss_mask"] == losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0


def test_padding_slots_change_nothing():
    model = build(MODEL__RPN__BATCH_SIZE_PER_IMAGE=10**6, MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE=10**6)
    images, boxlists = make_batch()
    targets = Targets.from_boxlists(boxlists)
    padded = Targets.from_boxlists([*boxlists, make_target([[i, i, i + 9, i + 9] for i in range(7)], [1] * 7)])
    padded = Targets(
        padded.boxes[:2],
        padded.labels[:2],
        type(padded.polygons)(
            padded.polygons.coords, padded.polygons.ring_offsets, padded.polygons.instance_offsets[: 2 * 7 + 1]
        ),
        padded.image_sizes[:2],
    )
    # every candidate is sampled, so the random choice plays no part; the sums run in another order
    expected, losses = model(images, targets), model(images, padded)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-6)


def test_detections_have_the_published_fields():
    model = build(MODEL__ROI_HEADS__SCORE_THRESH=0.0).eval()
    images, _ = make_batch()
    with torch.no_grad():
        results = model(images)
    assert [result.size for result in results] == [(128, 96), (120, 90)]
    for result in results:
        assert len(result) == 20
        assert result.get_field("mask").shape == (20, 1, 28, 28)
        assert ((result.get_field("mask") >= 0) & (result.get_field("mask") <= 1)).all()
        assert set(result.get_field("labels").tolist()) <= {1, 2, 3}
        assert (result.bbox[:, 2] < result.size[0]).all()


def test_no_detections():
    model = build(MODEL__ROI_HEADS__SCORE_THRESH=1.0).eval()
    images, _ = make_batch()
    with torch.no_grad():
        results = model(images)
    assert [len(result) for result in results] == [0, 0]
    assert results[0].get_field("mask").shape == (0, 1, 28, 28)


def test_an_image_is_detected_alike_alone_and_in_a_batch():
    model = build(MODEL__ROI_HEADS__SCORE_THRESH=0.0).eval()
    torch.manual_seed(2)
    images = [50 * torch.randn(3, 96, 128) for _ in range(2)]
    with torch.no_grad():
        together = model(images)
        alone = [model([image])[0] for image in images]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.bbox, other.bbox, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(one.get_field("scores"), other.get_field("scores"), rtol=1e-4, atol=1e-5)


def test_pasted_masks():
    changes = {"MODEL__ROI_HEADS__SCORE_THRESH": 0.0, "MODEL__ROI_MASK_HEAD__POSTPROCESS_MASKS": True}
    model = build(**changes).eval()
    images, _ = make_batch()
    with torch.no_grad():
        results = model(images)
    assert results[1].get_field("mask").shape == (20, 1, 90, 120)
    assert results[1].get_field("mask").dtype == torch.bool


def test_region_proposals_alone():
    model = build(MODEL__RPN_ONLY=True)
    images, targets = make_batch()
    assert set(model(images, targets)) == {"loss_objectness", "loss_rpn_box_reg"}
    with torch.no_grad():
        results = model.eval()(images)
    for result in results:
        assert len(result) <= 50
        assert (result.get_field("objectness").diff() <= 0).all()


def test_boxes_alone_need_no_masks():
    model = build(MODEL__MASK_ON=False)
    images, targets = make_batch()
    targets = [target.copy_with_fields("labels") for target in targets]
    assert set(model(images, targets)) == LOSSES - {"loss_mask"}


def test_errors_name_the_remedy():
    model = build()
    images, targets = make_batch()
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        model(images)
    with pytest.raises(ValueError, match=r"MODEL\.MASK_ON"):
        model(images, [target.copy_with_fields("labels") for target in targets])
    with pytest.raises(KeyError, match=r"known: .*FPNPredictor"):
        build(MODEL__ROI_BOX_HEAD__PREDICTOR="FPNPredicter")
    with pytest.raises(ValueError, match="BasicBlockWithFixedBatchNorm"):
        build(MODEL__RESNETS__TRANS_FUNC="BottleneckWithFixedBatchNorm")


def test_third_party_part_is_built_with_cfg_and_channels(monkeypatch):
    class Predictor(nn.Module):
        def __init__(self, cfg, in_channels):
            super().__init__()
            self.num_classes = cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES
            self.layer = nn.Linear(in_channels, self.num_classes * 5)

        def forward(self, x):
            return self.layer(x).split([self.num_classes, 4 * self.num_classes], 1)

    monkeypatch.setitem(registry.ROI_BOX_PREDICTOR, "TestPredictor", Predictor)
    model = build(MODEL__ROI_BOX_HEAD__PREDICTOR="TestPredictor")
    assert set(model(*make_batch())) == LOSSES
