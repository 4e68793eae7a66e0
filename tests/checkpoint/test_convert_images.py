"""What goes with the weights of other programs: images and strides that the config has to suit."""

from __future__ import annotations

import logging
import pickle
import re

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.config import cfg as defaults
from tests.checkpoint.foreign import (
    Skeleton,
    foreign_shapes,
    shrink,
    tensors,
)


@pytest.fixture
def warnings(monkeypatch):
    found = []
    logger = logging.getLogger("maskrcnn_benchmark.checkpoint")
    monkeypatch.setattr(logger, "warning", lambda message, *args: found.append(message % args))
    return found


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
