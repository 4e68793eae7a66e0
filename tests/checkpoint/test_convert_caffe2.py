"""Caffe2 pickles: every blob arrives in the part of the network it was for."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

from maskrcnn_benchmark.checkpoint import Checkpointer
from tests.checkpoint.foreign import (
    Skeleton,
    caffe2_names,
    filling_blob,
    make_blobs,
    published_shapes,
    shrink,
    values,
    write_python2,
)

MASK_FPN = "e2e_mask_rcnn_R_50_FPN_1x.yaml"
MASK_C4 = "e2e_mask_rcnn_R_50_C4_1x.yaml"
NEUTRAL = {"running_mean": 0.0, "running_var": 1.0}


CAFFE2_CASES = [
    ("ImageNetPretrained/MSRA/R-50", "rpn_R_50_FPN_1x.yaml", 2),
    ("ImageNetPretrained/MSRA/R-50", MASK_C4, 0),  # res5 goes to the box head and to the mask head
    ("ImageNetPretrained/MSRA/R-101", "e2e_faster_rcnn_R_101_FPN_1x.yaml", 1),
    ("ImageNetPretrained/MSRA/R-101", "e2e_mask_rcnn_X_101_32x8d_FPN_1x.yaml", 4),  # ResNeXt: the same names
    ("R-50-GN", "gn_baselines/e2e_mask_rcnn_R_50_FPN_1x_gn.yaml", 2),
    ("end-to-end Mask R-CNN R-50-FPN", MASK_FPN, 2),
    ("end-to-end Mask R-CNN R-101-FPN", "caffe2/e2e_mask_rcnn_R_101_FPN_1x_caffe2.yaml", 2),
]


@pytest.mark.parametrize(("model", "config", "protocol"), CAFFE2_CASES)
def test_every_caffe2_blob_arrives(tmp_path, model, config, protocol):
    names = caffe2_names(model)
    shapes = shrink(published_shapes(config))
    blobs = make_blobs(names, shapes)
    momentum = {f"{blob}_momentum": array + 1 for blob, array in blobs.items()}
    content = {**blobs, **momentum, "lr": np.array(0.1, np.float32)}
    if model.startswith("end-to-end"):
        content = {"blobs": content, "cfg": "MODEL: {}\n"}
    if protocol < 3:
        write_python2(tmp_path / "model", content, protocol)
    else:
        (tmp_path / "model").write_bytes(pickle.dumps(content, protocol))
    network = Skeleton(shapes)
    report = Checkpointer(network).load_weights(str(tmp_path / "model"))

    filled = set()
    for name, tensor in network.state_dict().items():
        blob = filling_blob(name, names)
        leaf = name.rpartition(".")[2]
        if blob is not None:
            np.testing.assert_array_equal(tensor, blobs[blob], err_msg=name)
            filled.add(blob)
        elif leaf in NEUTRAL and filling_blob(name.replace(leaf, "weight"), names):
            assert (tensor == NEUTRAL[leaf]).all(), name
        else:
            assert (tensor == Skeleton.START).all(), name
            assert name in report.missing or "anchor_generator" in name
    assert set(names) - filled == ({"fc1000_w", "fc1000_b"} & set(names))
    assert report.unused == (["fc1000.bias", "fc1000.weight"] if "fc1000_w" in names else [])
    assert not report.left_out
    if model.startswith("end-to-end"):
        assert not report.missing


# Blob names that Detectron's own sources give to heads beyond the lists of facts.
FURTHER_BLOBS = {
    "caffe2/e2e_faster_rcnn_R_50_C4_1x_caffe2.yaml": {
        "conv_rpn_w": "rpn.head.conv.weight",
        "rpn_cls_logits_b": "rpn.head.cls_logits.bias",
        "rpn_bbox_pred_w": "rpn.head.bbox_pred.weight",
        "cls_score_w": "roi_heads.box.predictor.cls_score.weight",
        "bbox_pred_w": "roi_heads.box.predictor.bbox_pred.weight",
        "res5_2_branch2c_w": "roi_heads.box.feature_extractor.head.layer4.2.conv3.weight",
    },
    "caffe2/e2e_keypoint_rcnn_R_50_FPN_1x_caffe2.yaml": {
        "conv_fcn1_w": "roi_heads.keypoint.feature_extractor.conv_fcn1.weight",
        "conv_fcn8_b": "roi_heads.keypoint.feature_extractor.conv_fcn8.bias",
        "kps_score_lowres_w": "roi_heads.keypoint.predictor.kps_score_lowres.weight",
        "kps_score_lowres_b": "roi_heads.keypoint.predictor.kps_score_lowres.bias",
    },
    "caffe2/e2e_mask_rcnn_X-152-32x8d-FPN-IN5k_1.44x_caffe2.yaml": {
        "res4_35_branch2b_w": "backbone.body.layer3.35.conv2.weight",
        "res3_7_branch2a_bn_s": "backbone.body.layer2.7.bn1.weight",
        "fpn_inner_res4_35_sum_lateral_w": "backbone.fpn.fpn_inner3.weight",
        "fpn_res3_7_sum_b": "backbone.fpn.fpn_layer2.bias",
    },
    "gn_baselines/e2e_mask_rcnn_R_50_FPN_Xconv1fc_1x_gn.yaml": {
        "head_conv1_w": "roi_heads.box.feature_extractor.xconvs.0.weight",
        "head_conv1_gn_s": "roi_heads.box.feature_extractor.xconvs.1.weight",
        "head_conv4_gn_b": "roi_heads.box.feature_extractor.xconvs.10.bias",
        "fc6_w": "roi_heads.box.feature_extractor.fc6.weight",
        "_[mask]_fcn2_w": "roi_heads.mask.feature_extractor.mask_fcn2.0.weight",
        "_[mask]_fcn2_gn_s": "roi_heads.mask.feature_extractor.mask_fcn2.1.weight",
        "fpn_inner_res5_2_sum_w": "backbone.fpn.fpn_inner4.0.weight",
        "fpn_inner_res5_2_sum_gn_b": "backbone.fpn.fpn_inner4.1.bias",
        "fpn_res2_2_sum_gn_s": "backbone.fpn.fpn_layer1.1.weight",
    },
    "dcn/e2e_mask_rcnn_mdconv_R_50_FPN_1x.yaml": {
        "res2_1_branch2b_w": "backbone.body.layer1.1.conv2.weight",
        "res3_1_branch2b_w": "backbone.body.layer2.1.conv2.conv.weight",
        "res5_0_branch2b_w": "backbone.body.layer4.0.conv2.conv.weight",
    },
    "retinanet/retinanet_R-50-FPN_1x.yaml": {
        "retnet_cls_conv_n0_fpn3_w": "rpn.head.cls_tower.0.weight",
        "retnet_bbox_conv_n3_fpn3_b": "rpn.head.bbox_tower.6.bias",
        "fpn_6_w": "backbone.fpn.top_blocks.p6.weight",
        "fpn_7_b": "backbone.fpn.top_blocks.p7.bias",
        "fpn_inner_res3_3_sum_lateral_w": "backbone.fpn.fpn_inner2.weight",
    },
}  # fmt: skip


@pytest.mark.parametrize("config", FURTHER_BLOBS)
def test_blobs_of_further_heads(tmp_path, config):
    wanted = FURTHER_BLOBS[config]
    shapes = shrink(published_shapes(config))
    # one blob more for the normalised mask convolution, whose own blob must know that
    blobs = {blob: values(blob, shapes[name]) for blob, name in wanted.items()}
    blobs["conv1_w"] = values("conv1_w", shapes["backbone.body.stem.conv1.weight"])
    for blob in [blob for blob in blobs if "_gn_" in blob]:
        blobs.setdefault(re.sub("_gn_[sb]$", "_w", blob), values("x", [1]))
    # as deep as the network, so that it is of its architecture
    for name in shapes:
        if match := re.fullmatch(r"backbone\.body\.layer(\d)\.(\d+)\.conv1\.weight", name):
            blob = f"res{int(match.group(1)) + 1}_{match.group(2)}_branch2a_w"
            blobs.setdefault(blob, values(blob, shapes[name]))
    blobs = {blob: array for blob, array in blobs.items() if array.shape != (1,) or blob in wanted}
    (tmp_path / "file").write_bytes(pickle.dumps({"blobs": blobs}, 2))
    network = Skeleton(shapes)
    Checkpointer(network).load_weights(str(tmp_path / "file"))
    state = network.state_dict()
    for blob, name in wanted.items():
        np.testing.assert_array_equal(state[name], blobs[blob], err_msg=blob)


def test_caffe2_retinanet_anchors_and_units(tmp_path):
    """Detectron lists its anchors by octave, then by ratio; its deltas have no weights."""
    blobs = {
        "conv1_w": values("conv1_w", [4, 3, 7, 7]),
        "retnet_cls_pred_fpn3_b": values("cls", [9 * 80]),
        "retnet_bbox_pred_fpn3_b": values("box", [9 * 4]),
        "retnet_bbox_pred_fpn3_w": values("weight", [9 * 4, 16, 3, 3]),
    }
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"blobs": blobs}, 2))
    network = Skeleton(shrink(published_shapes("retinanet/retinanet_R-50-FPN_1x.yaml")))
    Checkpointer(network).load_weights(str(tmp_path / "file.pkl"))
    state = network.state_dict()
    logits = state["rpn.head.cls_logits.bias"].reshape(3, 3, 80)
    deltas = state["rpn.head.bbox_pred.bias"].reshape(3, 3, 4)
    kernels = state["rpn.head.bbox_pred.weight"].reshape(3, 3, 4, 16, 3, 3)
    for octave in range(3):
        for ratio in range(3):
            theirs = 3 * octave + ratio
            found = logits[ratio, octave].numpy()
            np.testing.assert_array_equal(found, blobs["retnet_cls_pred_fpn3_b"].reshape(9, 80)[theirs])
            for index, weight in enumerate((10, 10, 5, 5)):
                row = 4 * theirs + index
                assert deltas[ratio, octave, index] == blobs["retnet_bbox_pred_fpn3_b"][row] * weight
                found = kernels[ratio, octave, index].numpy()
                np.testing.assert_array_equal(found, blobs["retnet_bbox_pred_fpn3_w"][row] * np.float32(weight))
