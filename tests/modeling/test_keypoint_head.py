"""The keypoint head: which regions it trains, its loss and its decoding against plain loops, and the whole network."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import SampledRegions
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import cubic_weights, heat_maps_to_keypoints
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.loss import (
    has_visible_keypoints,
    keypoint_loss,
    keypoint_regions,
)
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import Keypoints, PersonKeypoints, keypoints_to_heat_map
from maskrcnn_benchmark.structures.targets import Targets
from tests.modeling.test_detector import build, make_batch, make_target
from tests.modeling.test_no_host_reads import reads_of_a_step

KEYPOINTS = {
    "MODEL__MASK_ON": False,
    "MODEL__KEYPOINT_ON": True,
    "MODEL__ROI_KEYPOINT_HEAD__POOLER_SCALES": (0.25, 0.125, 0.0625, 0.03125),
    "MODEL__ROI_KEYPOINT_HEAD__CONV_LAYERS": (16, 16),
    "MODEL__ROI_KEYPOINT_HEAD__POOLER_RESOLUTION": 4,
    "MODEL__ROI_KEYPOINT_HEAD__RESOLUTION": 16,
    "MODEL__ROI_KEYPOINT_HEAD__SHARE_BOX_FEATURE_EXTRACTOR": False,
}
# A backbone without a pyramid, whose box features are maps.
SHARED_C4 = {
    "MODEL__BACKBONE__CONV_BODY": "R-50-C4",
    "MODEL__BACKBONE__OUT_CHANNELS": 64,
    "MODEL__RESNETS__TRANS_FUNC": "BottleneckWithFixedBatchNorm",
    "MODEL__RPN__USE_FPN": False,
    "MODEL__RPN__ANCHOR_STRIDE": (16,),
    "MODEL__ROI_HEADS__USE_FPN": False,
    "MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION": 14,
    "MODEL__ROI_BOX_HEAD__POOLER_SCALES": (0.0625,),
    "MODEL__ROI_BOX_HEAD__FEATURE_EXTRACTOR": "ResNet50Conv5ROIFeatureExtractor",
    "MODEL__ROI_BOX_HEAD__PREDICTOR": "FastRCNNPredictor",
    "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 16,
    "MODEL__ROI_HEADS__DETECTIONS_PER_IMG": 5,
    "MODEL__ROI_KEYPOINT_HEAD__SHARE_BOX_FEATURE_EXTRACTOR": True,
}
# A softmax does not change when the same number is added everywhere: but for rounding this gradient is zero.
SHIFT = "roi_heads.keypoint.predictor.kps_score_lowres.bias"
FIXED = {"MODEL__ROI_KEYPOINT_HEAD__FIXED_SLOTS": True}


def add_keypoints(boxlists, seed=0):
    """Give every object 17 keypoints inside its box, about a third of them not labelled."""
    generator = torch.Generator().manual_seed(seed)
    for boxlist in boxlists:
        low, high = boxlist.bbox[:, None, :2], boxlist.bbox[:, None, 2:]
        points = low + torch.rand((len(boxlist), 17, 2), generator=generator) * (high - low)
        visibility = torch.randint(0, 3, (len(boxlist), 17, 1), generator=generator).float()
        keypoints = torch.cat((points * (visibility > 0), visibility), dim=2)
        boxlist.add_field("keypoints", PersonKeypoints(keypoints, boxlist.size))


def make_keypoint_batch(empty=()):
    images, boxlists = make_batch()
    for i in empty:
        boxlists[i] = make_target([], [], boxlists[i].size)
    add_keypoints(boxlists)
    return images, Targets.from_boxlists(boxlists)


def test_objects_with_a_visible_keypoint():
    boxes = torch.tensor([[10.0, 10, 20, 20]] * 5)
    points = torch.zeros(5, 2, 3)
    points[0, 1] = torch.tensor([20.0, 10, 1])  # on the corner
    points[1, 0] = torch.tensor([20.5, 15, 2])  # beside the box
    points[2, 1] = torch.tensor([15.0, 15, 0])  # not labelled
    points[3, 0] = torch.tensor([15.0, 15, 2])
    assert has_visible_keypoints(points, boxes).tolist() == [True, False, False, True, False]


def regions_by_hand():
    targets = Targets(
        boxes=torch.tensor([[[0.0, 0, 9, 9], [20, 20, 39, 39]], [[5, 5, 25, 25], [0, 0, 0, 0]]]),
        labels=torch.tensor([[1, 1], [1, 0]]),
        polygons=None,
        image_sizes=[(64, 64)] * 2,
        keypoints=torch.zeros(2, 2, 1, 3),
    )
    targets.keypoints[0, 0, 0] = torch.tensor([12.0, 4, 2])  # outside its own box: this object trains nothing
    targets.keypoints[0, 1, 0] = torch.tensor([30.0, 30, 1])
    targets.keypoints[1, 0, 0] = torch.tensor([6.0, 7, 2])
    regions = SampledRegions(
        boxes=torch.arange(32.0).reshape(2, 4, 4),
        valid=torch.tensor([[True, True, True, True], [True, True, True, False]]),
        labels=torch.tensor([[1, 1, 1, 0], [1, 0, 0, 1]]),
        matches=torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0]]),
        target_deltas=torch.zeros(2, 4, 4),
    )
    return regions, targets


def test_regions_that_are_trained():
    regions, targets = regions_by_hand()
    compact = keypoint_regions(regions, targets, num_slots=None)
    assert compact.index.tolist() == [0, 2, 4]
    assert compact.rois.tolist() == [[0, 0, 1, 2, 3], [0, 8, 9, 10, 11], [1, 16, 17, 18, 19]]
    assert compact.keypoints.tolist() == [[[30, 30, 1]], [[30, 30, 1]], [[6, 7, 2]]]
    fixed = keypoint_regions(regions, targets, num_slots=3)
    assert fixed.index.tolist() == [0, 1, 2, 4, 5, 6]
    assert fixed.rois[:, 0].tolist() == [0, -1, 0, 1, -1, -1]
    trained = fixed.rois[:, 0] >= 0
    assert not fixed.keypoints[~trained].any()
    for column, expected in zip(compact, fixed, strict=True):
        assert torch.equal(column, expected[trained])
    assert len(keypoint_regions(regions, targets, num_slots=100).rois) == 8


def test_targets_without_keypoints_are_refused():
    regions, targets = regions_by_hand()
    targets.keypoints = None
    with pytest.raises(ValueError, match=r"MODEL.KEYPOINT_ON is True, but the targets hold no keypoints"):
        keypoint_regions(regions, targets, num_slots=None)


def loss_by_hand(logits, keypoints, boxes):
    """Softmax cross-entropy of each visible keypoint's cell, one at a time; the mean over all of them."""
    losses = []
    size = logits.shape[-1]
    for maps, points, (x1, y1, x2, y2) in zip(logits, keypoints, boxes, strict=True):
        for own, (x, y, visibility) in zip(maps, points, strict=True):
            column, row = math.floor((x - x1) * size / (x2 - x1)), math.floor((y - y1) * size / (y2 - y1))
            if visibility > 0 and 0 <= column < size and 0 <= row < size:
                losses.append(np.log(np.exp(own - own.max()).sum()) + own.max() - own[row, column])
    return np.mean(losses), len(losses)


def test_loss_against_a_loop():
    rng = np.random.RandomState(0)
    logits = rng.randn(12, 5, 8, 8)
    corners = rng.uniform(0, 40, (12, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (12, 2))], axis=1)
    sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
    points = corners[:, None] + rng.uniform(-0.2, 1.2, (12, 5, 2)) * sides  # some lie beside their boxes
    keypoints = np.concatenate([points, rng.randint(0, 3, (12, 5, 1))], axis=2)
    expected, count = loss_by_hand(logits, keypoints, boxes)
    assert 10 < count < 50
    arguments = [torch.tensor(array, dtype=torch.float32) for array in (logits, keypoints, boxes)]
    arguments[0].requires_grad_()
    loss = keypoint_loss(*arguments)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, arguments[0])
    cells, valid = keypoints_to_heat_map(arguments[1], arguments[2], 8)
    softmax = arguments[0].detach().flatten(2).softmax(2).unflatten(2, (8, 8))
    assert not gradient[valid == 0].any()
    own = torch.nn.functional.one_hot(cells[valid == 1], 64).unflatten(1, (8, 8))
    torch.testing.assert_close(gradient[valid == 1], (softmax[valid == 1] - own) / count)


@pytest.mark.parametrize("count", [0, 3])
def test_loss_without_a_visible_keypoint(count):
    logits = torch.randn(count, 5, 8, 8, requires_grad=True)
    loss = keypoint_loss(logits, torch.zeros(count, 5, 3), torch.tensor([[0.0, 0, 9, 9]]).expand(count, 4))
    assert loss == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient.any()


def decode_by_loop(maps, boxes):
    """The published decoding: cv2.resize to the size of each box, argmax of each map, middle of that pixel."""
    points, logits = np.zeros((*maps.shape[:2], 2)), np.zeros(maps.shape[:2])
    for r, (x1, y1, x2, y2) in enumerate(boxes):
        width, height = max(x2 - x1, 1), max(y2 - y1, 1)
        pixels = (math.ceil(width), math.ceil(height))
        for p, own in enumerate(maps[r]):
            enlarged = cv2.resize(own, pixels, interpolation=cv2.INTER_CUBIC)
            row, column = divmod(int(enlarged.argmax()), pixels[0])
            points[r, p] = x1 + (column + 0.5) * width / pixels[0], y1 + (row + 0.5) * height / pixels[1]
            logits[r, p] = enlarged[row, column]
    return points, logits


def smooth_maps(rng, count, num_keypoints, size):
    """Maps with one broad peak and noise, as a trained network gives them."""
    centre = rng.uniform(-2, size + 2, (count, num_keypoints, 2, 1, 1))
    y, x = np.mgrid[:size, :size]
    distance = (x - centre[:, :, 0]) ** 2 + (y - centre[:, :, 1]) ** 2
    return (8 * np.exp(-distance / 18) + 0.3 * rng.randn(count, num_keypoints, size, size)).astype(np.float32)


@pytest.mark.parametrize("kind", ["noise", "smooth"])
@pytest.mark.parametrize("max_values", [1, 20_000, None])
def test_decoding_against_opencv(kind, max_values):
    rng = np.random.RandomState(0)
    maps = rng.randn(25, 5, 56, 56).astype(np.float32) if kind == "noise" else smooth_maps(rng, 25, 5, 56)
    corners = rng.uniform(-5, 200, (25, 2))
    sides = np.exp(rng.uniform(np.log(0.3), np.log(180), (25, 2)))  # reduced, enlarged, below a pixel
    sides[0], sides[1] = 56, (112, 28)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    expected, expected_logits = decode_by_loop(maps, boxes)
    points, logits = heat_maps_to_keypoints(torch.from_numpy(maps), torch.from_numpy(boxes), max_values=max_values)
    assert points.shape == (25, 5, 3)
    assert (points[..., 2] == 1).all()
    np.testing.assert_allclose(logits.numpy(), expected_logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(points[..., :2].numpy(), expected, rtol=0, atol=1e-3)


def test_decoding_undoes_what_training_aims_at():
    """A peak in the cell of the target leads back to the keypoint: to a cell and half a pixel, without a bias."""
    rng = np.random.RandomState(0)
    corners = rng.uniform(0, 50, (60, 2))
    sides = rng.uniform(56, 200, (60, 2))  # enlarged: a lone peak can fall between the pixels of a reduced map
    boxes = torch.tensor(np.concatenate([corners, corners + sides], axis=1), dtype=torch.float32)
    places = torch.tensor(rng.uniform(0, 1, (60, 17, 2)), dtype=torch.float32)
    points = boxes[:, None, :2] + places * (boxes[:, None, 2:] - boxes[:, None, :2])
    cells, valid = keypoints_to_heat_map(torch.nn.functional.pad(points, (0, 1), value=2.0), boxes, 56)
    assert valid.all()
    maps = torch.nn.functional.one_hot(cells, 56 * 56).float().unflatten(2, (56, 56))
    found, _ = heat_maps_to_keypoints(maps, boxes)
    errors = found[..., :2] - points
    assert (errors.abs() <= torch.tensor(sides, dtype=torch.float32)[:, None] / 56 + 0.5).all()
    assert errors.mean(dim=(0, 1)).abs().max() < 0.1


def test_of_equal_peaks_the_first_counts():
    points, logits = heat_maps_to_keypoints(torch.zeros(1, 2, 8, 8), torch.tensor([[10.0, 20, 30, 25]]))
    assert points.tolist() == [[[10.5, 20.5, 1], [10.5, 20.5, 1]]]
    assert logits.tolist() == [[0, 0]]


def test_decoding_keeps_its_precision_in_autocast():
    rng = np.random.RandomState(0)
    maps, boxes = torch.from_numpy(smooth_maps(rng, 4, 3, 16)), torch.tensor([[0.0, 0, 90, 70]] * 4)
    expected = heat_maps_to_keypoints(maps, boxes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, heat_maps_to_keypoints(maps, boxes), expected))


def test_decoding_nothing():
    points, logits = heat_maps_to_keypoints(torch.zeros(0, 17, 56, 56), torch.zeros(0, 4))
    assert points.shape == (0, 17, 3)
    assert logits.shape == (0, 17)


def test_interpolation_reproduces_lines():
    """Inside, a cubic kernel keeps what is linear; its weights add up to one everywhere."""
    weights = cubic_weights(torch.tensor([30.0], dtype=torch.float64), 32, 10)[0]
    torch.testing.assert_close(weights.sum(1), torch.ones(32, dtype=torch.float64))
    places = (torch.arange(30, dtype=torch.float64) + 0.5) / 3 - 0.5
    cells = torch.arange(10, dtype=torch.float64)
    at_cells = (places - places.round()).abs() < 1e-9
    torch.testing.assert_close((weights[:30] @ cells)[at_cells], places[at_cells])
    assert torch.equal(weights[30], weights[29])


def test_every_trainable_parameter_gets_a_gradient():
    everything = {"MODEL__RPN__BATCH_SIZE_PER_IMAGE": 10**6, "MODEL__RPN__STRADDLE_THRESH": -1}
    model = build(**KEYPOINTS, **everything)
    losses = model(*make_keypoint_batch())
    expected = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_kp"}
    assert set(losses) == expected
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name != SHIFT:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name
    assert model.get_parameter(SHIFT).grad.norm() < 1e-5


def losses_and_gradients(batch, **changes):
    model = build(**KEYPOINTS, **changes)
    torch.manual_seed(3)
    losses = model(*batch)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("empty", [(), (0,), (0, 1)])
def test_fixed_slots_equal_the_compact_form(empty):
    batch = make_keypoint_batch(empty)
    expected, expected_gradients = losses_and_gradients(batch)
    losses, gradients = losses_and_gradients(batch, **FIXED)
    assert (losses["loss_kp"] > 0) == (len(empty) < 2)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-7)
    for name, gradient in gradients.items():
        distance = (gradient - expected_gradients[name]).norm()
        assert distance <= 1e-5 * expected_gradients[name].norm() + (1e-6 if name == SHIFT else 0), name


def test_the_step_reads_once_or_with_fixed_slots_never():
    batch = make_keypoint_batch()
    assert reads_of_a_step(build(**KEYPOINTS), batch) == ["aten::nonzero"]
    assert reads_of_a_step(build(**KEYPOINTS, **FIXED), batch, max_grad_norm=1.0) == []


def test_masks_and_keypoints_together():
    images, boxlists = make_batch()
    add_keypoints(boxlists)
    model = build(**KEYPOINTS | {"MODEL__MASK_ON": True})
    losses = model(images, boxlists)
    assert {"loss_mask", "loss_kp"} < set(losses)
    with torch.no_grad():
        detections = model.eval()(images)
    assert {"mask", "keypoints"} < set(detections[0].fields())


def test_inference():
    model = build(**KEYPOINTS, MODEL__ROI_HEADS__SCORE_THRESH=0.0).eval()
    images, _ = make_batch()
    with torch.no_grad():
        together = model(images)
        features = model.backbone(images.tensors)
        heat_maps = model.roi_heads.keypoint.predictor(
            model.roi_heads.keypoint.feature_extractor(
                features, torch.nn.functional.pad(together[0].bbox, (1, 0), value=0.0)
            )
        )
    expected, logits = decode_by_loop(heat_maps.numpy(), together[0].bbox.numpy())
    keypoints = together[0].get_field("keypoints")
    assert isinstance(keypoints, PersonKeypoints)
    assert keypoints.size == together[0].size
    np.testing.assert_allclose(keypoints.keypoints[..., :2].numpy(), expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(keypoints.get_field("logits").numpy(), logits, rtol=1e-4, atol=2e-4)
    assert len(together[1].get_field("keypoints")) == len(together[1]) > 0


def test_an_image_without_detections():
    model = build(**KEYPOINTS, MODEL__ROI_HEADS__SCORE_THRESH=1.0).eval()
    with torch.no_grad():
        detections = model(make_batch()[0])
    assert [len(boxlist) for boxlist in detections] == [0, 0]
    assert detections[0].get_field("keypoints").keypoints.shape == (0, 17, 3)


def test_another_number_of_keypoints():
    model = build(**KEYPOINTS, MODEL__ROI_KEYPOINT_HEAD__NUM_CLASSES=3)
    images, boxlists = make_batch()
    for boxlist in boxlists:
        middle = (boxlist.bbox[:, :2] + boxlist.bbox[:, 2:]) / 2
        points = torch.cat((middle, torch.ones(len(boxlist), 1)), dim=1)[:, None].expand(-1, 3, 3)
        boxlist.add_field("keypoints", Keypoints(points, boxlist.size))
    assert model(images, boxlists)["loss_kp"] > 0
    with torch.no_grad():
        found = model.eval()(images)[0]
    assert isinstance(found, BoxList)
    assert type(found.get_field("keypoints")) is Keypoints


def test_features_of_the_box_head_can_be_shared():
    """The original fails here in training; ours takes the box head's features of the chosen regions."""
    model = build(**KEYPOINTS | SHARED_C4)
    assert model.roi_heads.keypoint.feature_extractor is model.roi_heads.box.feature_extractor
    losses = model(*make_keypoint_batch())
    sum(losses.values()).backward()
    assert losses["loss_kp"] > 0
    assert model.roi_heads.keypoint.predictor.kps_score_lowres.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert len(model.eval()(make_batch()[0])[0].get_field("keypoints")) > 0
