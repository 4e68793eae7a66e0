"""Backbones and heads that do not fit one another: one sentence each, with the key and the remedy."""

from __future__ import annotations

import pytest

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.config import validate


def make_cfg(repository, name, overrides):
    cfg = global_cfg.clone()
    cfg.merge_from_file(repository / "configs" / name)
    cfg.merge_from_list([item for pair in {"MODEL.DEVICE": "cpu", **overrides}.items() for item in pair])
    return cfg


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"MODEL.RPN.USE_FPN": True, "MODEL.RPN.ANCHOR_STRIDE": (4, 8, 16, 32, 64)}, "RPN.USE_FPN must be False"),
        ({"MODEL.RPN.ANCHOR_STRIDE": (8,)}, r"ANCHOR_STRIDE is \(8,\), but .* has the stride 16; set it to \(16,\)"),
        ({"MODEL.BACKBONE.CONV_BODY": "R-50-C5"}, r"ANCHOR_STRIDE is \(16,\), but the map of R-50-C5 .* to \(32,\)"),
        (
            {"MODEL.ROI_BOX_HEAD.POOLER_SCALES": (0.25, 0.125, 0.0625, 0.03125)},
            r"ROI_BOX_HEAD.POOLER_SCALES .* set it to \(0.0625,\)",
        ),
        ({"MODEL.ROI_BOX_HEAD.PREDICTOR": "FPNPredictor"}, "ROI_BOX_HEAD.PREDICTOR .* set it to FastRCNNPredictor"),
        (
            {"MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPN2MLPFeatureExtractor"},
            "PREDICTOR is FastRCNNPredictor, which does not take what FPN2MLP.* set it to FPNPredictor",
        ),
        ({"MODEL.ROI_BOX_HEAD.DILATION": 2}, "ROI_BOX_HEAD.DILATION is 2, .* MODEL.RESNETS.RES5_DILATION dilates res5"),
        ({"MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 7}, "ROI_MASK_HEAD.POOLER_RESOLUTION is 7, .* MODEL.ROI_BOX_HEAD"),
        ({"MODEL.ROI_MASK_HEAD.RESOLUTION": 28}, "ROI_MASK_HEAD.RESOLUTION is 28, .* set RESOLUTION to 14"),
        ({"MODEL.RESNETS.RES5_DILATION": 2}, "gives masks of 28 .* set RESOLUTION to 28"),
        ({"MODEL.ROI_MASK_HEAD.PREDICTOR": "MaskRCNNConv1x1Predictor"}, "set RESOLUTION to 7"),
        ({"MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS": True}, "POSTPROCESS_MASKS is True, .* set it to False"),
        (
            {"MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR": False, "MODEL.ROI_MASK_HEAD.DILATION": 2},
            "ROI_MASK_HEAD.DILATION is 2, which ResNet50Conv5ROIFeatureExtractor does not use",
        ),
    ],
)
def test_a_fault_names_key_and_remedy(repository, overrides, message):
    validate(make_cfg(repository, "e2e_mask_rcnn_R_50_C4_1x.yaml", {}))
    with pytest.raises(ValueError, match=message) as caught:
        validate(make_cfg(repository, "e2e_mask_rcnn_R_50_C4_1x.yaml", overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("e2e_mask_rcnn_R_50_C4_1x.yaml", {"MODEL.RESNETS.RES5_DILATION": 2, "MODEL.ROI_MASK_HEAD.RESOLUTION": 28}),
        ("gn_baselines/e2e_mask_rcnn_R_50_FPN_Xconv1fc_1x_gn.yaml", {"MODEL.ROI_BOX_HEAD.DILATION": 2}),
        ("e2e_mask_rcnn_R_50_FPN_1x.yaml", {"MODEL.ROI_MASK_HEAD.DILATION": 2}),
        ("e2e_faster_rcnn_R_50_C4_1x.yaml", {"MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS": True}),
        (
            "rpn_R_50_C4_1x.yaml",
            {"MODEL.BACKBONE.CONV_BODY": "R-50-C5", "MODEL.RPN.ANCHOR_STRIDE": (16,), "MODEL.RESNETS.RES5_DILATION": 2},
        ),
    ],
)
def test_what_fits(repository, name, overrides):
    validate(make_cfg(repository, name, overrides))


def test_pasted_masks_are_for_callers_of_the_model(repository):
    pasting = {"MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS": True}
    validate(make_cfg(repository, "e2e_mask_rcnn_R_50_C4_1x.yaml", pasting), testing=False)
