"""Box test-time augmentation against a plain loop over views, images and classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data.transforms import ImagePreparer
from maskrcnn_benchmark.data.views import ImageViews, View
from maskrcnn_benchmark.engine.bbox_aug import BoxAugmentation, keep_likely, to_plain_view
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.poolers import boxes_to_rois
from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_nms, cat_boxlist
from tests.apps.tiny_run import tiny_run  # noqa: F401
from tests.modeling.test_detector import make_cfg as small_network

SIZES = {"INPUT__MIN_SIZE_TEST": 96, "INPUT__MAX_SIZE_TEST": 160, "DATALOADER__SIZE_DIVISIBILITY": 32}
ALL = {
    "TEST__BBOX_AUG__ENABLED": True,
    "TEST__BBOX_AUG__H_FLIP": True,
    "TEST__BBOX_AUG__SCALES": (64, 128),
    "TEST__BBOX_AUG__MAX_SIZE": 150,
    "TEST__BBOX_AUG__SCALE_H_FLIP": True,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small inputs: where the cores are shared, threads that meet after each layer lose more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(images):
    return images


@pytest.fixture(scope="module")
def cfg():
    return small_network(**SIZES, **ALL, MODEL__ROI_HEADS__SCORE_THRESH=0.26, MODEL__ROI_HEADS__NMS=0.3)


@pytest.fixture(scope="module")
def model(cfg):
    torch.manual_seed(3)
    model = build_detection_model(cfg).eval()
    torch.nn.init.normal_(model.roi_heads.box.predictor.cls_score.weight, std=0.02)  # so that scores differ
    torch.nn.init.normal_(model.roi_heads.box.predictor.bbox_pred.weight, std=0.02)
    return model


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((60, 80), (70, 90))]


def assert_equal(found, expected, *, exactly=False):
    tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-5, "atol": 1e-3}
    for ours, other in zip(found, expected, strict=True):
        assert ours.size == other.size
        torch.testing.assert_close(ours.bbox, other.bbox, **tolerance)
        for field in other.fields():
            torch.testing.assert_close(ours.get_field(field), other.get_field(field), **tolerance)


def plain_batch(cfg, pictures):
    return next(iter(ImageViews.from_config(cfg)(pictures)))[0]


def test_views_of_a_config(cfg):
    assert ImageViews.from_config(cfg).views == (
        View(96, 160, False),
        View(96, 160, True),
        View(64, 150, False),
        View(64, 150, True),
        View(128, 150, False),
        View(128, 150, True),
    )
    plain = global_cfg.clone()
    plain.TEST.BBOX_AUG.SCALES = (400, 500)
    assert ImageViews.from_config(plain).views == (
        View(800, 1333, False),
        View(400, 4000, False),
        View(500, 4000, False),
    )


def test_the_plain_view_is_the_input_of_a_test(cfg, pictures):
    views = list(ImageViews.from_config(cfg)(pictures))
    for index, picture in enumerate(pictures):
        expected, (height, width) = ImagePreparer.from_config(cfg)(picture)
        (plain, is_flipped), (mirror, is_mirrored) = views[:2]
        assert (is_flipped, is_mirrored) == (False, True)
        torch.testing.assert_close(plain.tensors[index, :, :height, :width], expected, rtol=0, atol=0)
        torch.testing.assert_close(mirror.tensors[index, :, :height, :width].flip(2), expected, rtol=0, atol=0)
    assert [images.image_sizes[0] for images, _ in views[2:]] == [(64, 85), (64, 85), (112, 149), (112, 149)]
    assert {images.tensors.shape[2] % 32 for images, _ in views} == {0}


def test_pixels_where_the_device_normalises(cfg, pictures):
    pixels, _ = next(iter(ImageViews.from_config(cfg, keep_pixels=True)(pictures)))
    mean = torch.tensor(cfg.INPUT.PIXEL_MEAN)[:, None, None]
    height, width = pixels.image_sizes[0]
    assert pixels.tensors.dtype == torch.uint8
    expected = plain_batch(cfg, pictures).tensors[0, :, :height, :width]
    torch.testing.assert_close(pixels.tensors[0, :, :height, :width] - mean, expected, rtol=0, atol=0)


def test_boxes_return_to_the_plain_view():
    sizes, plain_sizes = torch.tensor([[50, 80], [60, 40]]), torch.tensor([[100, 160], [90, 60]])
    boxes = torch.rand(2, 3, 5, 4) * 20
    boxes[..., 2:] += boxes[..., :2]
    for flipped in (False, True):
        ours = to_plain_view(boxes, sizes, plain_sizes, flipped=flipped)
        for n, k in np.ndindex(2, 3):
            (height, width), (plain_height, plain_width) = sizes[n].tolist(), plain_sizes[n].tolist()
            boxlist = BoxList(boxes[n, k], (width, height))
            boxlist = boxlist.transpose(FLIP_LEFT_RIGHT) if flipped else boxlist
            torch.testing.assert_close(ours[n, k], boxlist.resize((plain_width, plain_height)).bbox)


def test_no_augmentation_changes_nothing(cfg, model, pictures):
    cfg = cfg.clone()
    cfg.TEST.BBOX_AUG.H_FLIP, cfg.TEST.BBOX_AUG.SCALES = False, ()
    with torch.no_grad():
        expected = model(plain_batch(cfg, pictures))
    assert sum(map(len, expected)) > 10
    assert_equal(BoxAugmentation(model, ImageViews.from_config(cfg), same)(pictures), expected, exactly=True)


@torch.no_grad()
def by_hand(cfg, model, pictures):
    """Box lists of all views, class by class; of masks nothing."""
    box_head, settings = model.roi_heads.box, cfg.MODEL.ROI_HEADS
    pooled = {}
    for images, flipped in ImageViews.from_config(cfg)(pictures):
        features = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, features)
        rois = boxes_to_rois(proposals.boxes, proposals.valid)
        logits, deltas = box_head.predictor(box_head.feature_extractor(features, rois))
        n, r = proposals.valid.shape
        scores, deltas = logits.softmax(1).reshape(n, r, -1), deltas.reshape(n, r, -1)
        for i, (height, width) in enumerate(images.image_sizes):
            valid = proposals.valid[i]
            decoded = box_head.box_coder.decode(deltas[i, valid], proposals.boxes[i, valid])
            for label in range(1, scores.shape[2]):
                boxes = BoxList(decoded[:, 4 * label : 4 * label + 4], (width, height))
                boxes.add_field("scores", scores[i, valid, label])
                boxes = boxes.clip_to_image(remove_empty=False)
                boxes = boxes.transpose(FLIP_LEFT_RIGHT) if flipped else boxes
                first = pooled.setdefault((i, label), [])
                first.append(boxes.resize(first[0].size) if first else boxes)
    results = []
    for i in range(len(pictures)):
        kept = []
        for label in range(1, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES):
            boxes = cat_boxlist(pooled[i, label])
            boxes = boxlist_nms(boxes[boxes.get_field("scores") > settings.SCORE_THRESH], settings.NMS)
            boxes.add_field("labels", torch.full((len(boxes),), label))
            kept.append(boxes)
        boxes = cat_boxlist(kept)
        results.append(boxes[boxes.get_field("scores").argsort(descending=True)[: settings.DETECTIONS_PER_IMG]])
    return results


@pytest.mark.parametrize(("h_flip", "scales"), [(True, ()), (False, (64, 128)), (True, (64, 128))])
def test_views_are_pooled_before_any_box_is_suppressed(cfg, model, pictures, h_flip, scales):
    cfg = cfg.clone()
    cfg.TEST.BBOX_AUG.H_FLIP, cfg.TEST.BBOX_AUG.SCALES = h_flip, scales
    found = BoxAugmentation(model, ImageViews.from_config(cfg), same)(pictures)
    expected = by_hand(cfg, model, pictures)
    assert min(map(len, expected)) > 3
    assert_equal(found, expected)
    for boxes in found:
        assert boxes.get_field("mask").shape == (len(boxes), 1, 28, 28)


def test_masks_come_from_the_plain_view(cfg, model, pictures):
    found = BoxAugmentation(model, ImageViews.from_config(cfg), same)(pictures)
    images = plain_batch(cfg, pictures)
    with torch.no_grad():
        expected = model.roi_heads.mask.add_fields(
            model.backbone(images.tensors), [boxes.copy_with_fields(["scores", "labels"]) for boxes in found]
        )
    assert_equal(found, expected, exactly=True)


def test_only_boxes_that_cannot_be_kept_are_cut():
    boxes, scores = torch.rand(2, 3, 50, 4), torch.rand(2, 3, 50).round(decimals=1)
    kept_boxes, kept_scores = keep_likely(boxes, scores, threshold=0.75)
    assert kept_scores.shape[2] == int((scores > 0.75).sum(2).max()) < 50
    for n, k in np.ndindex(2, 3):
        likely = scores[n, k] > 0.75
        order = scores[n, k][likely].sort(descending=True, stable=True).indices
        torch.testing.assert_close(kept_boxes[n, k][: likely.sum()], boxes[n, k][likely][order], rtol=0, atol=0)
    assert keep_likely(boxes, scores, threshold=2.0)[1].shape == (2, 3, 1)


def test_predictor_augments(cfg, model, pictures):
    def predict(augmentation):
        predictor = Predictor(
            model, prepare=ImagePreparer.from_config(cfg), categories=[], size_divisible=32, confidence_threshold=0.0,
            augmentation=augmentation,
        )  # fmt: skip
        return predictor(pictures[0])

    views = ImageViews.from_config(cfg)
    plain = predict(
        BoxAugmentation(model, ImageViews(views.views[:1], normalize=views.normalize, size_divisible=32), same)
    )
    expected = predict(None)
    torch.testing.assert_close(plain.bbox, expected.bbox, rtol=0, atol=0)
    assert torch.equal(plain.get_field("mask"), expected.get_field("mask"))
    augmented = predict(BoxAugmentation(model, views, same))
    assert augmented.size == expected.size
    assert augmented.bbox.shape != expected.bbox.shape or not torch.equal(augmented.bbox, expected.bbox)


def test_a_whole_test_with_augmentation(tiny_run):  # noqa: F811
    keys = {"MODEL.ROI_HEADS.SCORE_THRESH": 0.0, "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 20, "MODEL.WEIGHT": ""}

    def results(**more):
        tiny_run.test("--skip-eval", keys={**keys, **more})
        return json.loads((tiny_run.output / "inference" / "tiny" / "bbox.json").read_text())

    plain = results()
    assert results(**{"TEST.BBOX_AUG.ENABLED": True}) == plain
    views = {"TEST.BBOX_AUG.ENABLED": True, "TEST.BBOX_AUG.H_FLIP": True, "TEST.BBOX_AUG.SCALES": (80,)}
    augmented = results(**views)
    # pixels that are normalised where the network runs, and two worker processes, change nothing
    assert results(**views, **{"DATALOADER.PREFETCH": "always", "DATALOADER.NUM_WORKERS": 2}) == augmented
    assert {row["image_id"] for row in augmented} == {row["image_id"] for row in plain}
    assert augmented != plain
