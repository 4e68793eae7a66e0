"""Weights of detectron2: every tensor arrives in the part of the network it was for."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.checkpoint import Checkpointer
from maskrcnn_benchmark.modeling.rpn.anchor_generator import generate_anchors
from tests.checkpoint.foreign import (
    Skeleton,
    foreign_shapes,
    published_shapes,
    shrink,
    tensors,
    weight_names,
)

MASK_FPN = "e2e_mask_rcnn_R_50_FPN_1x.yaml"
MASK_C4 = "e2e_mask_rcnn_R_50_C4_1x.yaml"
D2_FPN = "detectron2 COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
D2_C4 = "detectron2 COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"


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
