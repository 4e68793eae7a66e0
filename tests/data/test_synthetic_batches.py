"""Invented batches: repeatable, and of the sizes and numbers of COCO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.data.synthetic_batches import make_synthetic_loader

JOB = Path(__file__).resolve().parents[2] / "configs" / "e2e_mask_rcnn_R_50_FPN_1x.yaml"


def make_config():
    config = cfg.clone()
    config.merge_from_file(str(JOB))
    return config


def test_invented_batches_follow_the_seed():
    config = make_config()
    config.INPUT.MIN_SIZE_TRAIN = 64
    settings = dict(is_train=True, num_images=2, length=6)
    first, again = (list(make_synthetic_loader(config, **settings)) for _ in range(2))
    assert len(first) == 6
    for left, right in zip(first, again, strict=True):
        assert torch.equal(left[0].tensors, right[0].tensors)
        assert torch.equal(left[1].boxes, right[1].boxes)
        assert torch.equal(left[1].polygons.coords, right[1].polygons.coords)
    assert first[4] is first[0]
    config.SEED = 1
    other = next(iter(make_synthetic_loader(config, **settings)))
    assert not torch.equal(other[1].labels, first[0][1].labels)
    elsewhere = next(iter(make_synthetic_loader(config, rank=1, **settings)))
    assert not torch.equal(elsewhere[0].tensors, other[0].tensors)


def test_invented_batches_are_like_cocos():
    config = make_config()
    loader = make_synthetic_loader(config, is_train=True, num_images=32, length=4, keep_pixels=True)
    counts, sides, vertices = [], [], []
    for images, targets, _ in loader:
        assert images.tensors.dtype == torch.uint8
        for size, each in zip(images.image_sizes, targets, strict=True):
            assert min(size) == 800 or max(size) == 1333
            counts.append(len(each))
            width, height = (each.bbox[:, 2:] - each.bbox[:, :2]).unbind(1)
            sides += ((width * height) / (size[0] * size[1])).sqrt().tolist()
            assert each.bbox.min() >= 0
            assert (each.bbox[:, 2:] <= torch.tensor([size[1], size[0]]) - 1).all()
        vertices += targets.polygons.ring_offsets.diff().tolist()
    # of 160 photos of COCO: 9.4 objects, half of them below 0.10 of the photo's side, 20 vertices a ring
    assert 6 < np.mean(counts) < 12
    assert 0.08 < np.median(sides) < 0.13
    assert 15 < np.mean(vertices) < 25
    upright = [images.tensors.shape[2] > images.tensors.shape[3] for images, _, _ in loader]
    assert upright == [False, True, False, False]


def test_polygons_fill_their_boxes():
    loader = make_synthetic_loader(make_config(), is_train=True, num_images=2, length=1, image_size=(480, 640))
    _, targets, _ = next(iter(loader))
    for each in targets:
        for box, instance in zip(each.bbox, each.get_field("masks").instances.polygons, strict=True):
            points = torch.cat([ring.reshape(-1, 2) for ring in instance.polygons])
            assert torch.cat([points.amin(0), points.amax(0)]).tolist() == pytest.approx(box.tolist(), abs=1e-2)


def test_keypoints_are_invented_where_they_are_trained():
    config = make_config()
    config.merge_from_list(["MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 5])
    _, targets, _ = next(iter(make_synthetic_loader(config, is_train=True, num_images=3, length=1, num_batches=1)))
    assert targets.keypoints.shape == (*targets.labels.shape, 5, 3)
    visible = targets.keypoints[..., 2] > 0
    assert 0.5 < visible[targets.valid].float().mean() < 0.9
    points, boxes = targets.keypoints[..., :2], targets.boxes[:, :, None]
    inside = (points >= boxes[..., :2]) & (points <= boxes[..., 2:])
    assert inside.all(dim=-1)[visible].all()
    assert not targets.keypoints[~visible].any()
