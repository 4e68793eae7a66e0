"""Weights of other programs: every tensor of a file in their names arrives in the part of the network it was for."""

from __future__ import annotations

import logging
import pickle
import re

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.checkpoint import Checkpointer, DetectronCheckpointer
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.rpn.anchor_generator import generate_anchors
from tests.checkpoint.foreign import (
    Skeleton,
    caffe2_names,
    filling_blob,
    foreign_shapes,
    make_blobs,
    published_shapes,
    shrink,
    tensors,
    values,
    write_python2,
)

MASK_FPN, MASK_C4 = "e2e_mask_rcnn_R_50_FPN_1x.yaml", "e2e_mask_rcnn_R_50_C4_1x.yaml"
D2_FPN = "detectron2 COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
D2_C4 = "detectron2 COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"
NEUTRAL = {"running_mean": 0.0, "running_var": 1.0}


@pytest.fixture
def warnings(monkeypatch):
    found = []
    logger = logging.getLogger("maskrcnn_benchmark.checkpoint")
    monkeypatch.setattr(logger, "warning", lambda message, *args: found.append(message % args))
    return found


def weight_names(shapes):
    return [name for name in shapes if "anchor_generator" not in name]


# ---- Caffe2 ----

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


# ---- detectron2 ----


def d2_layer(name):
    """Where a layer of detectron2 is in the published networks, written down layer by layer."""
    name = name.replace(".norm.", "_norm.")
    name = re.sub(r"^backbone\.(bottom_up\.)?(stem|res[234])", r"backbone.body.\2", name)
    name = re.sub(r"^backbone\.bottom_up\.res5", "backbone.body.layer4", name)
    for stage in (2, 3, 4):
        name = name.replace(f"body.res{stage}", f"body.layer{stage - 1}")
    name = re.sub(r"conv(\d)_norm", r"bn\1", name)
    name = name.replace("shortcut_norm", "downsample.1").replace("shortcut", "downsample.0")
    for level in (2, 3, 4, 5):
        name = name.replace(f"backbone.fpn_lateral{level}", f"backbone.fpn.fpn_inner{level - 1}")
        name = name.replace(f"backbone.fpn_output{level}", f"backbone.fpn.fpn_layer{level - 1}")
    for theirs, ours in (
        ("proposal_generator.rpn_head.conv", "rpn.head.conv"),
        ("proposal_generator.rpn_head.objectness_logits", "rpn.head.cls_logits"),
        ("proposal_generator.rpn_head.anchor_deltas", "rpn.head.bbox_pred"),
        ("roi_heads.box_head.fc1", "roi_heads.box.feature_extractor.fc6"),
        ("roi_heads.box_head.fc2", "roi_heads.box.feature_extractor.fc7"),
        ("roi_heads.box_predictor", "roi_heads.box.predictor"),
        ("roi_heads.mask_head.mask_fcn", "roi_heads.mask.feature_extractor.mask_fcn"),
        ("roi_heads.mask_head.deconv", "roi_heads.mask.predictor.conv5_mask"),
        ("roi_heads.mask_head.predictor", "roi_heads.mask.predictor.mask_fcn_logits"),
        ("roi_heads.res5", "roi_heads.box.feature_extractor.head.layer4"),
    ):
        name = name.replace(theirs, ours)
    return name


def d2_anchor_order(sizes, ratios):
    """For each of our anchors the index of the anchor of the same form among detectron2's."""
    theirs = [(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios]
    ours = generate_anchors(16, sizes, ratios)
    widths, heights = (ours[:, 2] - ours[:, 0] + 1).tolist(), (ours[:, 3] - ours[:, 1] + 1).tolist()
    order = []
    for width, height in zip(widths, heights, strict=True):
        distances = [abs(np.log(width / w)) + abs(np.log(height / h)) for w, h in theirs]
        order.append(int(np.argmin(distances)))
    assert sorted(order) == list(range(len(theirs)))
    return order


def rows(tensor, index, per_row):
    """The rows of a layer in another order."""
    return tensor.reshape(-1, per_row, *tensor.shape[1:])[index].reshape(tensor.shape)


def check_detectron2(network, theirs, order):
    state = network.state_dict()
    seen = set()
    for name, tensor in theirs.items():
        own = d2_layer(name)
        found = state[own]
        seen.add(own)
        if "cls_score" in own:  # the background is the last there, the first here
            assert torch.equal(found[0], tensor[-1])
            assert torch.equal(found[1:], tensor[:-1])
        elif "predictor.bbox_pred" in own or "mask_fcn_logits" in own:  # there is none there
            background = len(found) - len(tensor)
            assert background == (4 if "bbox" in own else 1)
            assert torch.equal(found[background:], tensor)
            assert not found[:background].any()
        elif "rpn.head.cls_logits" in own:
            assert torch.equal(found, rows(tensor, order, 1))
        elif "rpn.head.bbox_pred" in own:
            assert torch.equal(found, rows(tensor, order, 4))
        else:
            assert torch.equal(found, tensor), name
        if "feature_extractor.head.layer4" in own:
            other = own.replace("heads.box", "heads.mask")
            assert torch.equal(state[other], tensor)
            seen.add(other)
    assert seen == set(weight_names(state))


@pytest.mark.parametrize(
    ("model", "config", "sizes"), [(D2_FPN, MASK_FPN, [32]), (D2_C4, MASK_C4, [32, 64, 128, 256, 512])]
)
@pytest.mark.parametrize("written", ["pkl", "pth"])
def test_every_detectron2_tensor_arrives(tmp_path, model, config, sizes, written):
    theirs = tensors(shrink(foreign_shapes(model)))
    network = Skeleton(shrink(published_shapes(config)))
    if written == "pkl":
        arrays = {name: tensor.numpy() for name, tensor in theirs.items()}
        content = {"model": arrays, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
        (tmp_path / "file").write_bytes(pickle.dumps(content, 4))
    else:
        extras = {"pixel_mean": torch.tensor([103.53, 116.28, 123.675]).reshape(3, 1, 1)}
        torch.save({"model": {**theirs, **extras}, "iteration": 7}, tmp_path / "file")
    report = Checkpointer(network).load_weights(str(tmp_path / "file"), strict=True)
    check_detectron2(network, theirs, d2_anchor_order(sizes, [0.5, 1, 2]))
    assert not report.unused


def test_detectron2_retinanet_anchors_and_units(tmp_path):
    config = "retinanet/retinanet_R-50-FPN_1x.yaml"
    shapes = shrink(published_shapes(config))
    anchors, classes = 9, shapes["rpn.head.cls_logits.bias"][0] // 9
    theirs = {
        "backbone.bottom_up.stem.conv1.weight": shapes["backbone.body.stem.conv1.weight"],
        "backbone.top_block.p6.weight": shapes["backbone.fpn.top_blocks.p6.weight"],
        "head.cls_subnet.2.weight": shapes["rpn.head.cls_tower.2.weight"],
        "head.bbox_subnet.6.bias": shapes["rpn.head.bbox_tower.6.bias"],
        "head.cls_score.bias": [anchors * classes],
        "head.bbox_pred.bias": [anchors * 4],
        "head.bbox_pred.weight": shapes["rpn.head.bbox_pred.weight"],
    }
    theirs = tensors(theirs)
    torch.save({"model": theirs}, tmp_path / "file.pth")
    network = Skeleton(shapes)
    report = Checkpointer(network).load_weights(str(tmp_path / "file.pth"))
    assert not report.unused
    state = network.state_dict()
    order = d2_anchor_order([32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)], [0.5, 1, 2])
    assert torch.equal(state["rpn.head.cls_logits.bias"], rows(theirs["head.cls_score.bias"], order, classes))
    deltas = state["rpn.head.bbox_pred.bias"].reshape(anchors, 4)
    # our coder divides by 10, 10, 5, 5, detectron2's by 1: the same box comes out
    decoded = deltas / torch.tensor([10.0, 10.0, 5.0, 5.0])
    torch.testing.assert_close(decoded, theirs["head.bbox_pred.bias"].reshape(anchors, 4)[order])
    assert torch.equal(state["rpn.head.cls_tower.2.weight"], theirs["head.cls_subnet.2.weight"])
    assert torch.equal(state["backbone.fpn.top_blocks.p6.weight"], theirs["backbone.top_block.p6.weight"])


# ---- torchvision ----


def torchvision_layer(name):
    """Where a layer of torchvision's R-CNN is in the published networks."""
    name = re.sub(r"^backbone\.body\.(conv1|bn1)", r"backbone.body.stem.\1", name)
    for kind, own in (("inner_blocks", "fpn_inner"), ("layer_blocks", "fpn_layer")):
        name = re.sub(rf"fpn\.{kind}\.(\d)\.0", lambda match, own=own: f"fpn.{own}{int(match.group(1)) + 1}", name)
    name = name.replace("rpn.head.conv.0.0", "rpn.head.conv")
    name = name.replace("roi_heads.box_head", "roi_heads.box.feature_extractor")
    name = name.replace("roi_heads.box_predictor", "roi_heads.box.predictor")
    name = re.sub(
        r"roi_heads\.mask_head\.(\d)\.0",
        lambda match: f"roi_heads.mask.feature_extractor.mask_fcn{int(match.group(1)) + 1}",
        name,
    )
    return name.replace("roi_heads.mask_predictor", "roi_heads.mask.predictor")


def with_classes(shapes, count):
    """The shapes of a Mask R-CNN for another number of classes."""
    sizes = {"cls_score": count, "predictor.bbox_pred": 4 * count, "mask_fcn_logits": count}
    return {
        name: next(([size, *shape[1:]] for layer, size in sizes.items() if layer in name), shape)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("classes", [91, 81, 5])
def test_every_torchvision_tensor_arrives(tmp_path, classes):
    scaled = shrink if classes != 91 else dict  # once in full size
    theirs = tensors(scaled(foreign_shapes("torchvision maskrcnn_resnet50_fpn")))
    network = Skeleton(scaled(with_classes(published_shapes(MASK_FPN), classes)))
    torch.save(theirs, tmp_path / "file.pth")
    report = Checkpointer(network).load_weights(str(tmp_path / "file.pth"))
    state = network.state_dict()
    coco = ["1-11", "13-25", "27-28", "31-44", "46-65", "67", "70", "72-82", "84-90"]
    ids = [0, *(number for span in coco for number in range(int(span.split("-")[0]), int(span.split("-")[-1]) + 1))]
    seen = set()
    for name, tensor in theirs.items():
        if "num_batches_tracked" in name:
            continue
        own = torchvision_layer(name)
        seen.add(own)
        per_class = {"cls_score": 1, "bbox_pred": 4, "mask_fcn_logits": 1}.get(own.split(".")[-2])
        if per_class is None or own.startswith("rpn") or classes == 91:
            assert torch.equal(state[own], tensor), name
        elif classes == 81:  # COCO's categories in the order of their ids, and the background
            theirs_by_class = tensor.reshape(91, per_class, *tensor.shape[1:])
            found = state[own].reshape(81, per_class, *tensor.shape[1:])
            for row, number in enumerate(ids):
                assert torch.equal(found[row], theirs_by_class[number])
        else:
            assert own in report.left_out
            assert (state[own] == Skeleton.START).all()
    assert seen == set(weight_names(state))
    assert len(ids) == 81
    assert len(report.left_out) == (6 if classes == 5 else 0)
    assert not report.unused
    assert not report.missing


@pytest.mark.parametrize("nested", [False, True])
def test_every_torchvision_resnet_tensor_arrives(tmp_path, nested):
    theirs = tensors(shrink(foreign_shapes("torchvision resnet50")))
    content = {"state_dict": {f"module.{name}": tensor for name, tensor in theirs.items()}, "epoch": 3}
    torch.save(content if nested else theirs, tmp_path / "file.pth", _use_new_zipfile_serialization=not nested)
    network = Skeleton(shrink(published_shapes("rpn_R_50_FPN_1x.yaml")))
    report = Checkpointer(network).load_weights(str(tmp_path / "file.pth"))
    state = network.state_dict()
    for name, tensor in theirs.items():
        if "num_batches_tracked" not in name and not name.startswith("fc."):
            own = f"backbone.body.{'' if name.startswith('layer') else 'stem.'}{name}"
            assert torch.equal(state[own], tensor), name
    assert report.unused == ["fc1000.bias", "fc1000.weight"]
    assert len(report.loaded) == sum("backbone.body" in name for name in state)


def test_torchvision_resnet18_fits_its_names(tmp_path):
    theirs = tensors(shrink(foreign_shapes("torchvision resnet18")))
    stem = {"conv1", "bn1"}
    shapes = {
        f"backbone.body.{'stem.' if name.split('.')[0] in stem else ''}{name}": shape
        for name, shape in shrink(foreign_shapes("torchvision resnet18")).items()
        if not name.startswith("fc.") and "num_batches" not in name
    }
    torch.save(theirs, tmp_path / "file.pth")
    report = Checkpointer(Skeleton(shapes)).load_weights(str(tmp_path / "file.pth"))
    assert report.loaded == list(shapes)


def test_a_variance_of_zero_does_not_divide(tmp_path):
    theirs = tensors(shrink(foreign_shapes("torchvision resnet18")))
    theirs["bn1.running_var"][3] = 0
    torch.save(theirs, tmp_path / "file.pth")
    network = Skeleton({"stem.bn1.running_var": [4], "stem.bn1.weight": [4]})
    Checkpointer(network).load_weights(str(tmp_path / "file.pth"))
    found = network.state_dict()["stem.bn1.running_var"]
    assert found[3] == pytest.approx(1e-5)
    assert torch.equal(found[:3], theirs["bn1.running_var"][:3])


# ---- what goes with the weights ----


def make_config(*opts):
    cfg = defaults.clone()
    cfg.merge_from_list(list(opts))
    return cfg


TORCHVISION_KEYS = (
    'INPUT.TO_BGR255 False INPUT.PIXEL_MEAN "[0.485, 0.456, 0.406]" INPUT.PIXEL_STD "[0.229, 0.224, 0.225]" '
    "MODEL.RESNETS.STRIDE_IN_1X1 False"
)


def test_images_that_do_not_suit_the_weights_are_named(tmp_path, warnings):
    theirs = tensors(shrink(foreign_shapes("torchvision resnet18")))
    torch.save(theirs, tmp_path / "file.pth")
    shapes = {"stem.conv1.weight": [4, 3, 7, 7]}
    DetectronCheckpointer(make_config(), Skeleton(shapes)).load_weights(str(tmp_path / "file.pth"))
    assert len(warnings) == 1
    assert warnings[0].endswith(f"set {TORCHVISION_KEYS}")
    suited = make_config(*(part.strip('"') for part in re.findall(r'"[^"]*"|\S+', TORCHVISION_KEYS)))
    DetectronCheckpointer(suited, Skeleton(shapes)).load_weights(str(tmp_path / "file.pth"))
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("blobs", "opts", "words"),
    [
        ({}, (), ""),
        ({}, ("MODEL.RESNETS.STRIDE_IN_1X1", "False"), "set MODEL.RESNETS.STRIDE_IN_1X1 True"),
        ({}, ("INPUT.TO_BGR255", "False"), "set INPUT.TO_BGR255 True"),
        ({}, ("INPUT.PIXEL_STD", "[57.0, 57.0, 58.0]"), 'set INPUT.PIXEL_STD "[1.0, 1.0, 1.0]"'),
        ({"conv1_gn_s": np.ones(64, np.float32)}, (), "set MODEL.RESNETS.STRIDE_IN_1X1 False"),
        ({"res2_0_branch2b_w": np.ones((64, 8, 3, 3), np.float32)}, (), "set MODEL.RESNETS.STRIDE_IN_1X1 False"),
    ],
)
def test_caffe2_files_tell_their_strides(tmp_path, warnings, blobs, opts, words):
    content = {
        "conv1_w": np.ones((64, 3, 7, 7), np.float32),
        "res2_0_branch2a_w": np.ones((64, 64, 1, 1), np.float32),
        "res2_0_branch2b_w": np.ones((64, 64, 3, 3), np.float32),
        **blobs,
    }
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(content))
    network = Skeleton({"stem.conv1.weight": [64, 3, 7, 7]})
    DetectronCheckpointer(make_config(*opts), network).load_weights(str(tmp_path / "file.pkl"))
    assert [warning.endswith(words) for warning in warnings] == ([True] if words else [])


MSRA_MEAN, MSRA_KEY = [103.53, 116.28, 123.675], 'set INPUT.PIXEL_STD "[57.375, 57.12, 58.395]"'


@pytest.mark.parametrize(
    ("extras", "buffers", "words"),
    [
        ({"__author__": "torchvision"}, {}, TORCHVISION_KEYS),  # converted by detectron2, but not trained again
        ({"__author__": "Detectron2 Model Zoo"}, {}, ""),
        ({}, {"pixel_mean": MSRA_MEAN, "pixel_std": [1.0, 1.0, 1.0]}, ""),
        ({}, {"pixel_mean": MSRA_MEAN, "pixel_std": [57.375, 57.12, 58.395]}, MSRA_KEY),
    ],
)
def test_detectron2_files_tell_their_images(tmp_path, warnings, extras, buffers, words):
    state = {name: np.array(value, np.float64).reshape(3, 1, 1) for name, value in buffers.items()}
    state["backbone.bottom_up.stem.conv1.weight"] = np.ones((4, 3, 7, 7), np.float32)
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"model": state, **extras}))
    network = Skeleton({"backbone.body.stem.conv1.weight": [4, 3, 7, 7]})
    DetectronCheckpointer(make_config(), network).load_weights(str(tmp_path / "file.pkl"))
    assert [warning.endswith(words) for warning in warnings] == ([True] if words else [])
