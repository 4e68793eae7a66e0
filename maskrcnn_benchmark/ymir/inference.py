"""The phases of a job that look at candidates: mining, inference, or both with one network."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from maskrcnn_benchmark.apps.predict import Predictor, config_of
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.ymir.annotations import class_name_key
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.failures import failing_as
from maskrcnn_benchmark.ymir.images import read_batches
from maskrcnn_benchmark.ymir.index import read_candidates
from maskrcnn_benchmark.ymir.job import Job
from maskrcnn_benchmark.ymir.mining import mine, validate_mining
from maskrcnn_benchmark.ymir.monitor import Share
from maskrcnn_benchmark.ymir.predictions import (
    DetectedImage,
    detected_image,
    write_detection,
    write_mining,
    write_segmentation,
)
from maskrcnn_benchmark.ymir.settings import INSTANCE_SEGMENTATION
from maskrcnn_benchmark.ymir.weights import choose_weights

logger = logging.getLogger("maskrcnn_benchmark.ymir")

_THRESHOLD = 0.2


class Candidates:
    """The candidates of a job, and the network that looks at them, loaded when it is first asked for.

    Args:
        job: all its processes make one.

    Raises:
        JobError: the index or an image is missing.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.images = read_candidates(job.environment.input.candidate_index_file)
        self.share = job.share(self.images)
        self.threshold = job.settings.number("conf_threshold", _THRESHOLD)
        if not 0 <= self.threshold <= 1:
            raise JobError(ReturnCode.CONFIG, f"conf_threshold must be between 0 and 1, got {self.threshold}")

    @functools.cached_property
    def predictor(self) -> Predictor:
        """The network with its weights.

        Raises:
            JobError: there are none, or they cannot be used.
        """
        settings = self.job.settings
        chosen = choose_weights(settings, "model_params_path", self.job.environment.input.models_dir)
        if chosen is None:
            raise JobError(
                ReturnCode.WEIGHTS, "config.yaml has no model_params_path: choose a model that was trained before"
            )
        with failing_as(ReturnCode.WEIGHTS):
            cfg = config_of(chosen.path, chosen.config_file)
        with failing_as(ReturnCode.CONFIG):
            cfg.merge_from_list(settings.options)
        with failing_as(ReturnCode.WEIGHTS):
            predictor = Predictor.from_checkpoint(
                chosen.path,
                config_file=chosen.config_file,
                options=settings.options,
                device=str(self.job.device),
                confidence_threshold=self.threshold,
            )
        names = [category.name for category in predictor.categories]
        logger.info("Weights from %s; its classes are %s", chosen.path, ", ".join(names))
        known = {class_name_key(name) for name in settings.class_names}
        if unknown := [name for name in names if class_name_key(name) not in known]:
            logger.warning("class_names does not have %s: what is found of that is left out", ", ".join(unknown))
        return predictor

    def gather(self, own: Sequence[Any]) -> list[Any]:
        """The results of all processes in the order of the candidates, on every process.

        Args:
            own: one for each image of this process's share.
        """
        shares = comm.all_gather(list(own))
        size = len(shares)
        return [shares[index % size][index // size] for index in range(len(self.images))]


def run_mining(candidates: Candidates, share: Share) -> None:
    """Score the candidates and write result.tsv.

    Raises:
        JobError: a setting, an image or the weights cannot be used.
    """
    job = candidates.job
    scores = mine(job.settings, candidates.share, make_predictor=lambda: candidates.predictor, progress=share.done)
    found = candidates.gather(scores)
    if comm.is_main_process():
        write_mining(job.environment.output.mining_result_file, list(zip(candidates.images, found, strict=True)))
    share.finished(1.0)


def run_inference(candidates: Candidates, share: Share) -> None:
    """Detect in the candidates and write infer-result.json.

    Raises:
        JobError: a setting, an image or the weights cannot be used.
    """
    job = candidates.job
    with_masks = job.settings.object_type == INSTANCE_SEGMENTATION
    predictor = candidates.predictor
    own: list[DetectedImage] = []
    for paths, pictures in read_batches(candidates.share, job.settings.batch_size, job.settings.num_workers):
        for path, found in zip(paths, predictor.detect(pictures), strict=True):
            own.append(detected_image(path, found, predictor, with_masks=with_masks))
        share.done(len(own) / len(candidates.share))
    images = candidates.gather(own)
    if comm.is_main_process():
        write_found(job, images, with_masks=with_masks)
    share.finished(1.0)


def write_found(job: Job, images: Sequence[DetectedImage], *, with_masks: bool) -> None:
    """Write infer-result.json in the form of the job's object type and protocol."""
    names, path = job.settings.class_names, job.environment.output.infer_result_file
    images = [image.only(names) for image in images]
    if with_masks:
        write_segmentation(path, images, names)
    else:
        key = "boxes" if job.environment.protocol.has_stages else "annotations"
        write_detection(path, images, key=key)
    count = len(list(chain(*(image.objects for image in images))))
    logger.info("Inference: %d objects in %d images", count, len(images))


def make_phases(job: Job) -> list[Callable[[Share], None]]:
    """Mining and inference as far as the job asks for them, in their order; wrong settings end here.

    Raises:
        JobError: see `Candidates`.
    """
    environment = job.environment
    if environment.run_mining:
        validate_mining(job.settings)
    candidates = Candidates(job)
    phases: list[Callable[[Share], None]] = []
    if environment.run_mining:
        phases.append(functools.partial(run_mining, candidates))
    if environment.run_infer:
        phases.append(functools.partial(run_inference, candidates))
    return phases if environment.mines_first else phases[::-1]
