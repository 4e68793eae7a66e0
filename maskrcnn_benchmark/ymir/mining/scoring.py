"""Pictures to scores, with a network as the algorithms see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn_benchmark.ymir.mining.aldd import aldd_scores, weighted_sum
from maskrcnn_benchmark.ymir.mining.consistency import cald_score
from maskrcnn_benchmark.ymir.mining.detections import Detector
from maskrcnn_benchmark.ymir.mining.entropy import entropy_score, mask_entropy_score
from maskrcnn_benchmark.ymir.mining.random_order import path_key, random_score
from maskrcnn_benchmark.ymir.mining.views import make_views

MASK_MAP_SIZE = 160


def score_images(
    algorithm: str,
    paths: Sequence[str],
    images: Sequence[np.ndarray],
    detector: Detector,
    *,
    cald_variant: str = "paper",
    class_weights: Sequence[float] = (),
) -> list[float]:
    """One score a picture, higher means mine first.

    Args:
        algorithm: one of `settings.ALGORITHMS`.
        paths: of the pictures; what is random about one depends on its path.
        images: uint8 [H, W, 3], BGR.
        detector: the trained network.
        cald_variant: see `cald_score`.
        class_weights: of aldd, see `weighted_sum`.
    """
    match algorithm:
        case "random":
            return [random_score(path) for path in paths]
        case "entropy":
            return [entropy_score(found.scores) for found in detector.detect(images)]
        case "apis":
            return [
                mask_entropy_score(found.masks, found.boxes, image_size=image.shape[:2], map_size=MASK_MAP_SIZE)
                for image, found in zip(images, detector.detect(images, masks=True), strict=True)
            ]
        case "aldd":
            return [weighted_sum(aldd_scores(levels), class_weights) for levels in detector.confidence_maps(images)]
        case "cald":
            return _cald_scores(paths, images, detector, cald_variant)
    raise ValueError(f"unknown mining algorithm {algorithm!r}")


def _cald_scores(paths: Sequence[str], images: Sequence[np.ndarray], detector: Detector, variant: str) -> list[float]:
    """The pictures first, all in one call; then all views of those in which something was found, in another.

    The cut-outs depend on the first, and a picture without detections needs no views at all: this way costs as many
    passes as showing the other views together with the pictures, or fewer.
    """
    references = detector.detect(images)
    views = [
        make_views(image, reference.boxes, key=path_key(path)) if len(reference) else []
        for path, image, reference in zip(paths, images, references, strict=True)
    ]
    changed = [view.image for of_image in views for view in of_image]
    found = iter(detector.detect(changed) if changed else [])
    return [
        cald_score(reference, [(view, next(found)) for view in of_image], variant=variant)
        for reference, of_image in zip(references, views, strict=True)
    ]
