"""Weights of torchvision: every tensor arrives in the part of the network it was for."""

from __future__ import annotations

import re

import pytest
import torch

from maskrcnn_benchmark.checkpoint import Checkpointer
from tests.checkpoint.foreign import (
    Skeleton,
    foreign_shapes,
    published_shapes,
    shrink,
    tensors,
    weight_names,
)

MASK_FPN = "e2e_mask_rcnn_R_50_FPN_1x.yaml"


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
