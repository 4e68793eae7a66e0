"""What the log says about loaded weights, and which files are refused as those of another network."""

from __future__ import annotations

import pickle

import pytest
import torch

from maskrcnn_benchmark.checkpoint import Checkpointer, LoadReport
from maskrcnn_benchmark.checkpoint.weights import part_of
from tests.checkpoint.foreign import Skeleton, caffe2_names, make_blobs, published_shapes, shrink, tensors

MASK_FPN = "e2e_mask_rcnn_R_50_FPN_1x.yaml"


def load(tmp_path, content, shapes, *, strict=False):
    """Load a state dict into a network of these shapes; the report and the network's state."""
    torch.save(content, tmp_path / "file.pth")
    network = Skeleton(shapes)
    return Checkpointer(network).load_weights(str(tmp_path / "file.pth"), strict=strict), network.state_dict()


def test_the_table_counts_by_parts():
    report = LoadReport(
        loaded=["backbone.body.stem.conv1.weight", "backbone.fpn.fpn_inner1.weight", "rpn.head.conv.bias"],
        left_out=["roi_heads.box.predictor.cls_score.weight", "roi_heads.box.predictor.cls_score.bias"],
        missing=["rpn.head.conv.weight"],
        unused=["fc1000.bias"],
    )
    assert [line.split() for line in report.table().split("\n")] == [
        ["part", "loaded", "left", "out", "missing"],
        ["backbone.body", "1", "0", "0"],
        ["backbone.fpn", "1", "0", "0"],
        ["roi_heads.box.predictor", "0", "2", "0"],
        ["rpn.head", "1", "0", "1"],
        ["not", "used", "from", "the", "file:", "fc1000.bias"],
    ]
    assert len({len(line) for line in report.table().split("\n")[:-1]}) == 1  # columns stand below one another
    assert part_of("weight") == "weight"


def test_imagenet_weights_in_the_log(tmp_path, monkeypatch):
    names = caffe2_names("ImageNetPretrained/MSRA/R-50")
    shapes = shrink(published_shapes(MASK_FPN))
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(make_blobs(names, shapes)))
    lines = []
    checkpointer = Checkpointer(Skeleton(shapes))
    monkeypatch.setattr(checkpointer.logger, "info", lambda message, *args: lines.append(message % args))
    checkpointer.load_weights(str(tmp_path / "R-50.pkl"))
    (text,) = lines
    first, *table = text.split("\n")
    assert "R-50.pkl (Caffe2): 265 tensors loaded, 0 left out, 42 missing, 2 of the file unused" in first
    assert table[1].split() == ["backbone.body", "265", "0", "0"]
    assert table[2].split() == ["backbone.fpn", "0", "0", "16"]
    assert table[-1] == "not used from the file: fc1000.bias, fc1000.weight"


CLASS_CASES = [
    (MASK_FPN, "cityscapes/e2e_mask_rcnn_R_50_FPN_1x_cocostyle.yaml",
     {"box.predictor.cls_score", "box.predictor.bbox_pred", "mask.predictor.mask_fcn_logits"}),
    (MASK_FPN, "e2e_keypoint_rcnn_R_50_FPN_1x.yaml", {"box.predictor.cls_score", "box.predictor.bbox_pred"}),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "layers"), CLASS_CASES)
def test_heads_of_other_classes_are_left_out_by_name(tmp_path, source, target, layers):
    theirs = tensors(shrink(published_shapes(source)))
    report, state = load(tmp_path, {"model": theirs}, shrink(published_shapes(target)))
    wanted = {f"roi_heads.{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}
    assert set(report.left_out) == wanted
    assert all(name in report.summary() for name in wanted)
    for name in wanted:
        assert (state[name] == Skeleton.START).all()
    for name in report.loaded:
        assert torch.equal(state[name], theirs[name])
    assert set(report.loaded) | set(report.left_out) | set(report.missing) == {
        name for name in state if "anchor_generator" not in name
    }
    with pytest.raises(ValueError, match="does not fit this model: roi_heads"):
        load(tmp_path, {"model": theirs}, shrink(published_shapes(target)), strict=True)


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (
            "e2e_keypoint_rcnn_R_50_FPN_1x.yaml",
            {"kps_score_lowres.weight": [32, 5, 4, 4], "kps_score_lowres.bias": [5]},
        ),
        ("retinanet/retinanet_R-50-FPN_1x.yaml", {"cls_logits.weight": [180, 16, 3, 3], "cls_logits.bias": [180]}),
    ],
)
def test_class_layers_of_the_other_families(tmp_path, config, sizes):
    shapes = shrink(published_shapes(config))
    other = {name: next((s for leaf, s in sizes.items() if name.endswith(leaf)), shapes[name]) for name in shapes}
    report, _ = load(tmp_path, tensors(other), shapes)
    assert sorted(name.split(".", 2)[-1].split("predictor.")[-1] for name in report.left_out) == sorted(sizes)


REFUSED = [
    ("e2e_mask_rcnn_R_101_FPN_1x.yaml", MASK_FPN, r"it has 3, 4, 23, 3 blocks in layer1, layer2, layer3, layer4, "
     r"the model 3, 4, 6, 3; set MODEL\.BACKBONE\.CONV_BODY"),
    (MASK_FPN, "e2e_mask_rcnn_R_101_FPN_1x.yaml", "it has 3, 4, 6, 3 blocks"),
    ("e2e_mask_rcnn_X_101_32x8d_FPN_1x.yaml", "e2e_mask_rcnn_R_101_FPN_1x.yaml", r"conv1\.weight \(\d+, .* instead of"),
    ("gn_baselines/e2e_mask_rcnn_R_50_FPN_1x_gn.yaml", MASK_FPN, "its backbone has group norm, the model's batch norm"),
    (MASK_FPN, "gn_baselines/e2e_mask_rcnn_R_50_FPN_1x_gn.yaml", "its backbone has batch norm, the model's group norm"),
    (MASK_FPN, "e2e_mask_rcnn_R_50_C4_1x.yaml", r"rpn\.head\.conv\.weight"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "words"), REFUSED)
def test_another_architecture_is_named_in_one_sentence(tmp_path, source, target, words):
    theirs = tensors(shrink(published_shapes(source)))
    torch.save({"model": theirs}, tmp_path / "file.pth")
    network = Skeleton(shrink(published_shapes(target)))
    with pytest.raises(ValueError, match=rf"file\.pth does not fit this model: .*{words}") as error:
        Checkpointer(network).load_weights(str(tmp_path / "file.pth"))
    assert "\n" not in str(error.value)
    assert all((tensor == Skeleton.START).all() for tensor in network.state_dict().values())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html>\n<html>404</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a git-lfs pointer"),
        (b"\n {}", "is a json file"),
        (b"", "no pickled weights"),
        (b"PK\x03\x04 half a zip", "truncated"),
    ],
)
def test_what_is_no_weights_file(tmp_path, content, words):
    (tmp_path / "R-50.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=rf"R-50\.pkl.*{words}"):
        Checkpointer(Skeleton({"a": [1]})).load_weights(str(tmp_path / "R-50.pkl"))


def test_the_name_of_a_file_plays_no_part(tmp_path):
    """A checkpoint called .pkl, and Caffe2 blobs called .pth."""
    shapes = shrink(published_shapes("rpn_R_50_FPN_1x.yaml"))
    torch.save({"model": tensors(shapes)}, tmp_path / "model.pkl")
    blobs = make_blobs(caffe2_names("ImageNetPretrained/MSRA/R-50"), shapes)
    (tmp_path / "model.pth").write_bytes(pickle.dumps(blobs, 2))
    for name in ("model.pkl", "model.pth"):
        report = Checkpointer(Skeleton(shapes)).load_weights(str(tmp_path / name))
        assert len(report.loaded) >= 265


def test_load_goes_on_from_a_given_checkpoint_and_starts_from_foreign_weights(tmp_path):
    shapes = shrink(published_shapes("rpn_R_50_FPN_1x.yaml"))
    torch.save({"model": tensors(shapes), "iteration": 12, "scheduler": {}}, tmp_path / "model.pth")
    assert Checkpointer(Skeleton(shapes)).load(str(tmp_path / "model.pth")) == {"iteration": 12}
    blobs = make_blobs(caffe2_names("ImageNetPretrained/MSRA/R-50"), shapes)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"blobs": blobs, "iteration": 9}, 2))
    assert Checkpointer(Skeleton(shapes)).load(str(tmp_path / "model.pkl")) == {}
