"""The project's networks behind the face that the algorithms see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.data.image_io import read_image
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.ymir.mining.network import NetworkDetector
from tests.ymir.mining.conftest import RETINANET, make_predictor


@pytest.fixture(scope="module")
def images(candidates: list[str]) -> list[np.ndarray]:
    """Pictures of three sizes; the second is padded on its way to the network."""
    first, second, third = (read_image(path) for path in candidates[:3])
    return [first, second[:, :150], third[:120], first[:, :150]]


def detector_of(predictor: Predictor, batch_size: int = 4, score_threshold: float = 0.15) -> NetworkDetector:
    return NetworkDetector.from_predictor(predictor, batch_size=batch_size, score_threshold=score_threshold)


def test_detections_are_the_predictors(demo_predictor: Predictor, images: list[np.ndarray]) -> None:
    detector = detector_of(demo_predictor)
    demo_predictor.confidence_threshold = 0.15
    for image, found in zip(images, detector.detect(images), strict=True):
        theirs = demo_predictor(image)
        assert len(found) == len(theirs) > 0
        boxes = found.boxes.copy()
        # Edges here, first and last pixel there; both scaled to the picture's size.
        scale = image.shape[1] / demo_predictor.prepare(image)[1][1]
        boxes[:, 2:] -= scale
        np.testing.assert_allclose(found.scores, theirs.get_field("scores"), rtol=1e-5)
        np.testing.assert_allclose(boxes, theirs.bbox, atol=0.5)


def test_distributions_belong_to_the_detections(demo_predictor: Predictor, images: list[np.ndarray]) -> None:
    found = detector_of(demo_predictor).detect(images)[0]
    assert found.distributions.shape == (len(found), 5)
    np.testing.assert_allclose(found.distributions.sum(axis=1), 1, atol=1e-6)
    assert (np.abs(found.distributions[:, 1:] - found.scores[:, None]).min(axis=1) == 0).all()
    # The regions themselves: the head's own softmax has these rows.
    model = demo_predictor.model
    batch = to_image_list([demo_predictor.prepare(images[0])[0]], demo_predictor.size_divisible)
    with torch.inference_mode():
        features = model.backbone(batch.tensors)
        proposals, _ = model.rpn(batch, features)
        scores = model.roi_heads.box.candidates(features, proposals, batch.sizes).scores[0].T.double().numpy()
    for row in found.distributions[:, 1:]:
        assert np.abs(scores - row).max(axis=1).min() < 1e-6


def test_masks_only_when_asked(demo_predictor: Predictor, images: list[np.ndarray]) -> None:
    detector = detector_of(demo_predictor)
    assert detector.detect(images[:1])[0].masks is None
    found = detector.detect(images[:1], masks=True)[0]
    assert found.masks.shape == (len(found), 20, 20)
    assert (found.masks >= 0).all()
    assert (found.masks <= 1).all()


def test_the_threshold_counts_below_that_of_the_model_too(demo_predictor: Predictor, images: list[np.ndarray]) -> None:
    many = detector_of(demo_predictor, score_threshold=0.0).detect(images[:1])[0]
    assert len(many) == 12  # DETECTIONS_PER_IMG
    threshold = float(np.median(many.scores))
    few = detector_of(demo_predictor, score_threshold=threshold).detect(images[:1])[0]
    np.testing.assert_array_equal(few.scores, many.scores[many.scores > threshold])


@pytest.mark.parametrize("batch_size", [2, 4])
def test_a_picture_does_not_see_the_others(
    demo_predictor: Predictor, images: list[np.ndarray], batch_size: int
) -> None:
    detector = detector_of(demo_predictor, batch_size)
    together, maps = detector.detect(images, masks=True), detector.confidence_maps(images)
    for index, image in enumerate(images):
        alone = detector.detect([image], masks=True)[0]
        for ours, other in zip(together[index], alone, strict=True):
            np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-4)
        for level, other in zip(maps[index], detector.confidence_maps([image])[0], strict=True):
            torch.testing.assert_close(level, other, rtol=1e-4, atol=1e-4)


def test_confidence_maps_cover_the_picture_alone(demo_predictor: Predictor, images: list[np.ndarray]) -> None:
    detector = detector_of(demo_predictor)
    for image, levels in zip(images, detector.confidence_maps(images), strict=True):
        tensor, (height, width) = demo_predictor.prepare(image)
        batch = to_image_list([tensor], demo_predictor.size_divisible)
        with torch.inference_mode():
            logits, _ = demo_predictor.model.rpn.head(demo_predictor.model.backbone(batch.tensors))
        assert len(levels) == len(logits) == 5
        for level, whole, stride in zip(levels, logits, (4, 8, 16, 32, 64), strict=True):
            assert level.shape == (1, 3, -(-height // stride), -(-width // stride))
            torch.testing.assert_close(level[0], whole[0, :, : level.shape[2], : level.shape[3]], rtol=1e-4, atol=1e-4)


def test_a_dense_detector_has_maps_of_each_class(images: list[np.ndarray]) -> None:
    predictor = make_predictor(*RETINANET)
    detector = detector_of(predictor, score_threshold=0.0)
    assert detector.num_map_classes == 4
    assert not detector.has_masks
    levels = detector.confidence_maps(images[:1])[0]
    found = detector.detect(images[:1])[0]
    assert found.distributions.shape == (len(found), 2)
    assert {level.shape[0] for level in levels} == {4}
    # Every detection's score is that of one place of the maps of its class.
    logits = torch.cat([level.flatten() for level in levels]).double().sigmoid().numpy()
    assert all(np.abs(logits - score).min() < 1e-6 for score in found.scores[:5])
    with pytest.raises(ValueError, match="no mask head"):
        detector.detect(images[:1], masks=True)
