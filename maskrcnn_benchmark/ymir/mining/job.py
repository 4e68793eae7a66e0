"""The mining phase of a job: one score for each candidate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.images import read_batches
from maskrcnn_benchmark.ymir.mining.network import NetworkDetector
from maskrcnn_benchmark.ymir.mining.random_order import random_score
from maskrcnn_benchmark.ymir.mining.scoring import score_images
from maskrcnn_benchmark.ymir.mining.settings import MiningSettings
from maskrcnn_benchmark.ymir.settings import JobSettings

logger = logging.getLogger("maskrcnn_benchmark.ymir")

_BATCHES_AT_ONCE = 4  # pictures of one size then find together


def validate_mining(settings: JobSettings) -> None:
    """Check the keys of the mining template.

    Raises:
        JobError: one is wrong; see `MiningSettings.from_settings`.
    """
    MiningSettings.from_settings(settings)


def mine(
    settings: JobSettings,
    images: Sequence[str],
    *,
    make_predictor: Callable[[], Predictor],
    progress: Callable[[float], None],
) -> list[float]:
    """One score for each picture, higher means mine first.

    A score depends on the picture, its path and the network alone, not on which other pictures are scored with it: any
    division of the candidates among processes gives the same, but for the last digits of sums that a network forms in
    another order for a batch of another size.

    Args:
        settings: of the job.
        images: paths of this process's pictures.
        make_predictor: loads the network; not called where no network is needed.
        progress: is told how much is done, 0 to 1.

    Raises:
        JobError: a key is wrong, does not suit the network, or a picture cannot be read.
    """
    chosen = MiningSettings.from_settings(settings)
    if chosen.algorithm == "random":
        progress(1.0)
        return [random_score(path) for path in images]
    detector = NetworkDetector.from_predictor(
        make_predictor(), batch_size=chosen.batch_size, score_threshold=chosen.confidence_threshold
    )
    check_network(chosen, detector, num_classes=len(settings.class_names))
    scores: list[float] = []
    for paths, pictures in read_batches(images, chosen.batch_size * _BATCHES_AT_ONCE, chosen.num_workers):
        scores += score_images(
            chosen.algorithm,
            paths,
            pictures,
            detector,
            cald_variant=chosen.cald_variant,
            class_weights=chosen.class_weights,
        )
        progress(len(scores) / len(images))
    logger.info("Scored %d candidates by %s", len(scores), chosen.algorithm)
    return scores


def check_network(chosen: MiningSettings, detector: NetworkDetector, *, num_classes: int) -> None:
    """Check that a network gives what the algorithm needs.

    Raises:
        JobError: it does not.
    """
    if chosen.algorithm == "apis" and not detector.has_masks:
        raise JobError(
            ReturnCode.CONFIG, "mining_algorithm apis needs masks, which this model does not predict; choose entropy"
        )
    weighs = any(weight != 1 for weight in chosen.class_weights)
    if chosen.algorithm == "aldd" and weighs and detector.num_map_classes < num_classes:
        raise JobError(
            ReturnCode.CONFIG,
            "class_distribution_scores cannot weigh the classes of this model: the confidence maps of its region "
            "proposals tell objects from background only; leave it empty",
        )
