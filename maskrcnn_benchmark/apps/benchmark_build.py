"""The runs of a benchmark from a config."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.benchmark_network import (
    FlopCount,
    count_step,
    give_positives,
    settle_activations,
    sharpen_classes,
)
from maskrcnn_benchmark.apps.benchmark_run import InferenceRun, TrainingRun, count_pixels
from maskrcnn_benchmark.apps.start import Run
from maskrcnn_benchmark.apps.test import build_trained_model
from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.build import make_device_normalize
from maskrcnn_benchmark.data.synthetic_batches import make_synthetic_loader
from maskrcnn_benchmark.engine.capture import capture_trunk
from maskrcnn_benchmark.engine.distributed import wrap_model
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Prefetcher, Preparation
from maskrcnn_benchmark.engine.seeding import seed_step
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.solver import make_lr_scheduler, make_optimizer
from maskrcnn_benchmark.tracking import SinkGroup
from maskrcnn_benchmark.utils import comm

DISTINCT_BATCHES = 4


@dataclass(frozen=True)
class Workload:
    """What is run.

    Args:
        synthetic: invented batches and a random network; otherwise the config's data and weights.
        image_size: (height, width) of invented photos; None: as in COCO.
        positives: positive regions of an invented image.
        count_flops: count the operations of one step first.
        opts: the config keys that were typed, which decide whether a weight file was asked for.
    """

    synthetic: bool
    image_size: tuple[int, int] | None = None
    positives: int = 64
    count_flops: bool = True
    opts: tuple[str, ...] = ()

    @property
    def reads_weights(self) -> bool:
        """Whether the network begins with weights from a file."""
        return not self.synthetic or "MODEL.WEIGHT" in self.opts[::2]


def build_training_run(cfg: CfgNode, device: torch.device, workload: Workload, *, length: int) -> TrainingRun:
    """Everything of a training run, its trunk captured as MODEL.CAPTURE says.

    Args:
        cfg: the whole config, frozen and validated.
        device: of this process.
        workload: what is run.
        length: steps that there will be.
    """
    seed_step(cfg.SEED, 0, 0)
    precision = Precision.from_config(cfg, device)
    model = build_detection_model(cfg)
    if workload.synthetic:
        settle_activations(model)
        give_positives(model, workload.positives)
    if workload.reads_weights:
        DetectronCheckpointer(cfg, model).load_weights(cfg.MODEL.WEIGHT)
    precision.place_model(model, device).train()
    prepare = Preparation(precision, device, make_device_normalize(cfg, device))
    images_per_process = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    flops = None
    if workload.count_flops:
        flops = _count_training_step(model, prepare, build_batches(cfg, device, workload, is_train=True, length=1))
    capture_trunk(
        model,
        cfg.MODEL.CAPTURE,
        shapes=cfg.INPUT.SHAPE_BUCKETS,
        num_images=images_per_process,
        precision=precision,
        device=device,
    )
    wrapped = wrap_model(model, device)
    optimizer = make_optimizer(cfg, model)
    step = TrainStep(
        wrapped,
        optimizer,
        make_lr_scheduler(cfg, optimizer),
        precision,
        accumulate_steps=cfg.SOLVER.ACCUMULATE_STEPS if cfg.SOLVER.ACCUMULATE_GRAD else 1,
        max_grad_norm=cfg.SOLVER.MAX_GRAD_NORM,
    )
    loader = build_batches(cfg, device, workload, is_train=True, length=length)
    return TrainingRun(
        step,
        Prefetcher(loader, prepare, device, overlap=prepare.normalize is not None),
        model,
        captured=cfg.MODEL.CAPTURE != "eager",
        seed=cfg.SEED,
        log_period=cfg.SOLVER.LOG_PERIOD,
        flops=flops,
    )


def build_inference_run(cfg: CfgNode, device: torch.device, workload: Workload, *, length: int) -> InferenceRun:
    """Everything of a test run; the arguments are those of `build_training_run`."""
    seed_step(cfg.SEED, 0, 0)
    precision = Precision.from_config(cfg, device)
    if workload.reads_weights:
        model = build_trained_model(cfg, Run(cfg, device, cfg.OUTPUT_DIR, SinkGroup(), False), opts=workload.opts)
    else:
        model = build_detection_model(cfg)
        settle_activations(model)
    precision.place_model(model, device).eval()
    prepare = Preparation(precision, device, make_device_normalize(cfg, device))
    first = next(iter(build_batches(cfg, device, workload, is_train=False, length=1)))
    run = InferenceRun(model, [], prepare)
    with torch.no_grad():
        images = prepare.images(first[0])
        if not workload.reads_weights:
            sharpen_classes(model, lambda: run.detect(images))
        if workload.count_flops:
            run.flops = count_step(
                model, lambda: sum(map(len, run.detect(images))), pixels=count_pixels(images), backward=False
            )
    run.batches = iter(build_batches(cfg, device, workload, is_train=False, length=length))
    return run


def _count_training_step(model: nn.Module, prepare: Preparation, loader: Iterable[Any]) -> FlopCount:
    images, targets, _ = prepare(next(iter(loader)))

    def step() -> int:
        with prepare.precision.autocast():
            losses = model(images, targets)
        sum(losses.values()).backward()
        return 0

    counted = count_step(model, step, pixels=count_pixels(images), backward=True)
    model.zero_grad(set_to_none=True)
    return counted


def build_batches(
    cfg: CfgNode, device: torch.device, workload: Workload, *, is_train: bool, length: int
) -> Iterable[Any]:
    """The batches of a run: invented ones, or those of the config's loader.

    A single batch is read in this process: worker processes and the thread that pins their batches would be in the way
    of a capture that follows.
    """
    keep_pixels = make_device_normalize(cfg, device) is not None
    if workload.synthetic:
        section = cfg.SOLVER if is_train else cfg.TEST
        return make_synthetic_loader(
            cfg,
            is_train=is_train,
            num_images=section.IMS_PER_BATCH // comm.get_world_size(),
            length=length,
            rank=comm.get_rank(),
            num_batches=min(length, DISTINCT_BATCHES),
            image_size=workload.image_size,
            keep_pixels=keep_pixels,
            pin_memory=device.type == "cuda",
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.MAX_ITER = length
    cfg.TEST.BBOX_AUG.ENABLED = False  # what is measured is the network, which sees one view
    if length == 1:
        cfg.DATALOADER.NUM_WORKERS = 0
    loaders = make_data_loader(
        cfg, is_train=is_train, is_distributed=comm.get_world_size() > 1, keep_pixels=keep_pixels
    )
    if is_train:
        return loaders[0]
    return itertools.islice(itertools.chain.from_iterable(itertools.repeat(loaders[0])), length)
