"""Every published config builds the published network; one of each family trains a step and detects."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.config import validate
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

TESTS = Path(__file__).parent.parent
CONFIGS = TESTS.parent / "configs"
STATE_DICTS = json.loads(gzip.decompress((TESTS / "contract" / "state_dicts.json.gz").read_bytes()))

SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 60,
    "MODEL.RPN.POST_NMS_TOP_N_TRAIN": 30,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN": 30,
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": 40,
    "MODEL.RPN.POST_NMS_TOP_N_TEST": 10,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 10,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 10**6,  # all anchors, so that each level of the pyramid gets a gradient
    "MODEL.RPN.STRADDLE_THRESH": -1,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 12,
    "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": 5,
    # a network that has learnt nothing is sure of nothing
    "MODEL.ROI_HEADS.SCORE_THRESH": 0.0,
    "MODEL.RETINANET.INFERENCE_TH": 0.0,
    "TEST.DETECTIONS_PER_IMG": 5,
}
# One config a family; slow where another row of the same parts is not.
FAMILIES = {
    "FPN": "e2e_mask_rcnn_R_50_FPN_1x.yaml",
    "C4": "e2e_mask_rcnn_R_50_C4_1x.yaml",
    "GN": "gn_baselines/e2e_mask_rcnn_R_50_FPN_1x_gn.yaml",
    "Xconv1fc": "gn_baselines/e2e_faster_rcnn_R_50_FPN_Xconv1fc_1x_gn.yaml",
    "ResNeXt": "e2e_mask_rcnn_X_101_32x8d_FPN_1x.yaml",
    "RPN only": "rpn_R_50_FPN_1x.yaml",
    "RPN only, C4": "rpn_R_50_C4_1x.yaml",
    "keypoint": "e2e_keypoint_rcnn_R_50_FPN_1x.yaml",
    "RetinaNet": "retinanet/retinanet_R-50-FPN_1x.yaml",
    "RetinaNet P5": "retinanet/retinanet_R-50-FPN_P5_1x.yaml",
    "DCN": "dcn/e2e_faster_rcnn_dconv_R_50_FPN_1x.yaml",
    "DCN v2": "dcn/e2e_mask_rcnn_mdconv_R_50_FPN_1x.yaml",
    "FBNet": "e2e_mask_rcnn_fbnet.yaml",
    "FBNet cham_v1a": "e2e_faster_rcnn_fbnet_chamv1a_600.yaml",
    "FBNet xirb16d": "e2e_mask_rcnn_fbnet_xirb16d_dsmask.yaml",
    "Cityscapes": "cityscapes/e2e_mask_rcnn_R_50_FPN_1x_binarymask.yaml",
    "VOC": "pascal_voc/e2e_faster_rcnn_R_50_C4_1x_1_gpu_voc.yaml",
}
# Keys that no published file sets.
FAMILIES |= {
    "C5": "e2e_faster_rcnn_R_50_C4_1x.yaml",
    "dilated res5": "e2e_mask_rcnn_R_50_FPN_1x.yaml",
    "class-agnostic boxes": "e2e_mask_rcnn_R_50_C4_1x.yaml",
}
OPTIONS = {
    "C5": {
        "MODEL.BACKBONE.CONV_BODY": "R-50-C5",
        "MODEL.BACKBONE.OUT_CHANNELS": 2048,
        "MODEL.RPN.ANCHOR_STRIDE": (32,),
        "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPN2MLPFeatureExtractor",
        "MODEL.ROI_BOX_HEAD.PREDICTOR": "FPNPredictor",
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.ROI_BOX_HEAD.POOLER_SCALES": (1 / 32,),
    },
    "dilated res5": {"MODEL.RESNETS.RES5_DILATION": 2},
    "class-agnostic boxes": {"MODEL.CLS_AGNOSTIC_BBOX_REG": True},
}
SLOW = {
    *OPTIONS, "Xconv1fc", "ResNeXt", "RPN only, C4", "RetinaNet P5", "DCN", "FBNet cham_v1a", "FBNet xirb16d",
    "Cityscapes", "VOC",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small inputs: where the cores are shared, threads that meet after each layer lose more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_cfg(name, **overrides):
    cfg = global_cfg.clone()
    cfg.merge_from_file(CONFIGS / name)
    cfg.merge_from_list([item for pair in {"MODEL.DEVICE": "cpu", **overrides}.items() for item in pair])
    validate(cfg)
    return cfg


@pytest.mark.parametrize("name", sorted(STATE_DICTS["configs"]))
def test_state_dict_names_and_shapes(name):
    with torch.device("meta"):
        model = build_detection_model(make_cfg(name))
    expected = STATE_DICTS["dicts"][STATE_DICTS["configs"][name]]
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == expected


def test_all_config_files_have_a_published_dict():
    published = json.loads((TESTS / "config" / "data" / "config_files.json").read_text(encoding="utf-8"))
    assert set(STATE_DICTS["configs"]) == set(published)


def make_target(cfg, boxes, labels, size):
    target = BoxList(torch.tensor(boxes), size, "xyxy")
    target.add_field("labels", torch.tensor(labels))
    rings = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes]
    target.add_field("masks", SegmentationMask(rings, size, mode="poly"))
    if cfg.MODEL.KEYPOINT_ON:
        from maskrcnn_benchmark.structures.keypoint import PersonKeypoints

        parts = torch.linspace(0.1, 0.9, 17)
        points = [
            torch.stack([x1 + parts * (x2 - x1), y1 + parts.flip(0) * (y2 - y1), torch.full((17,), 2.0)], 1)
            for x1, y1, x2, y2 in boxes
        ]
        target.add_field("keypoints", PersonKeypoints(torch.stack(points), size))
    return target


def make_batch(cfg):
    """Two images of 128 pixels, the second one smaller, with two objects and one."""
    generator = torch.Generator().manual_seed(1)
    images = [50 * torch.randn(3, h, w, generator=generator) / torch.tensor(cfg.INPUT.PIXEL_STD)[:, None, None]
              for h, w in ((128, 128), (96, 120))]  # fmt: skip
    last = cfg.MODEL.RETINANET.NUM_CLASSES if cfg.MODEL.RETINANET_ON else cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES
    targets = [
        make_target(cfg, [[10.0, 8.0, 60.0, 70.0], [60.0, 60.0, 120.0, 110.0]], [1, last - 1], (128, 128)),
        make_target(cfg, [[20.0, 10.0, 100.0, 80.0]], [1], (120, 96)),
    ]
    return to_image_list(images, cfg.DATALOADER.SIZE_DIVISIBILITY), targets


def expected_losses(cfg):
    if cfg.MODEL.RETINANET_ON:
        return {"loss_retina_cls", "loss_retina_reg"}
    names = {"loss_objectness", "loss_rpn_box_reg"}
    if not cfg.MODEL.RPN_ONLY:
        names |= {"loss_classifier", "loss_box_reg"}
        names |= {"loss_mask"} if cfg.MODEL.MASK_ON else set()
        names |= {"loss_kp"} if cfg.MODEL.KEYPOINT_ON else set()
    return names


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FAMILIES]
)
def test_a_family_trains_a_step_and_detects(family):
    cfg = make_cfg(FAMILIES[family], **SMALL, **OPTIONS.get(family, {}))
    torch.manual_seed(0)
    model = build_detection_model(cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".offset." in name:  # of a random network they point outside a map this small
                parameter *= 0.01
    images, targets = make_batch(cfg)

    losses = model.train()(images, targets)
    assert set(losses) == expected_losses(cfg)
    assert all(loss.dim() == 0 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # The softmax over a heat map does not see what its bias adds to all of it: that gradient is rounding, or nothing.
    assert without <= {"roi_heads.keypoint.predictor.kps_score_lowres.bias"}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    with torch.no_grad():
        found = model.eval()(images)
    for boxes, (height, width) in zip(found, images.image_sizes, strict=True):
        check_boxes(cfg, boxes, (width, height))


def check_boxes(cfg, boxes, size):
    assert boxes.size == size
    assert len(boxes) > 0
    assert boxes.bbox.isfinite().all()
    assert (boxes.bbox >= 0).all()
    assert (boxes.bbox <= torch.tensor([*size, *size]) - 1).all()
    only_proposals = cfg.MODEL.RPN_ONLY and not cfg.MODEL.RETINANET_ON
    scores = boxes.get_field("objectness" if only_proposals else "scores")
    assert (scores[:-1] >= scores[1:]).all()
    if only_proposals:
        return
    last = cfg.MODEL.RETINANET.NUM_CLASSES if cfg.MODEL.RETINANET_ON else cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES
    assert set(boxes.get_field("labels").tolist()) <= set(range(1, last))
    if cfg.MODEL.MASK_ON:
        mask = boxes.get_field("mask")
        assert mask.shape[:2] == (len(boxes), 1)
        assert ((mask >= 0) & (mask <= 1)).all()
    if cfg.MODEL.KEYPOINT_ON:
        assert len(boxes.get_field("keypoints")) == len(boxes)
