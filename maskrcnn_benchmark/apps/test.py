"""Evaluate a trained model: what tools/test_net.py does."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.augmentation import make_box_augmentation
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.options.test_net import make_parser as make_parser
from maskrcnn_benchmark.apps.report.report import make_report
from maskrcnn_benchmark.apps.sinks import make_last_files
from maskrcnn_benchmark.apps.start import Run, start_run
from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.config.classes import only_proposes
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.build import make_device_normalize
from maskrcnn_benchmark.data.transforms import DeviceNormalize
from maskrcnn_benchmark.engine.distributed import synchronize_buffers
from maskrcnn_benchmark.engine.inference import inference
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Preparation
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.tracking import MetricSink
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.miscellaneous import mkdir

logger = logging.getLogger("maskrcnn_benchmark.inference")


@dataclass(frozen=True)
class TestSettings:
    """What a test needs beside model and loaders; see ``engine.inference.inference``."""

    dataset_names: Sequence[str]
    output_dir: str
    iou_types: Sequence[str]
    box_only: bool
    device: str
    expected_results: Sequence[Sequence[Any]]
    expected_results_sigma_tol: float
    oks_sigmas: Sequence[float]
    coco_engine: str
    num_resamples: int
    warm_up: int

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TestSettings:
        """Read DATASETS.TEST, OUTPUT_DIR, TEST, and MODEL.MASK_ON, KEYPOINT_ON, RPN_ONLY and DEVICE."""
        further = {"segm": cfg.MODEL.MASK_ON, "keypoints": cfg.MODEL.KEYPOINT_ON}
        return cls(
            dataset_names=cfg.DATASETS.TEST,
            output_dir=cfg.OUTPUT_DIR,
            iou_types=("bbox", *(name for name, is_on in further.items() if is_on)),
            box_only=only_proposes(cfg),
            device=cfg.MODEL.DEVICE,
            expected_results=cfg.TEST.EXPECTED_RESULTS,
            expected_results_sigma_tol=cfg.TEST.EXPECTED_RESULTS_SIGMA_TOL,
            oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
            coco_engine=cfg.TEST.COCO_ENGINE,
            num_resamples=cfg.TEST.BOOTSTRAP,
            warm_up=cfg.TEST.WARM_UP,
        )


def run_tests(
    cfg: CfgNode,
    model: nn.Module,
    distributed: bool,
    *,
    data_loaders: Sequence[Any] | None = None,
    precision: Precision | None = None,
    normalize: DeviceNormalize | None = None,
    sink: MetricSink | None = None,
    steps: int = -1,
    skip_eval: bool = False,
    defer: bool = False,
) -> list[Any]:
    """Evaluate on every data set of DATASETS.TEST; results go to OUTPUT_DIR/inference/<data set>.

    Args:
        cfg: the whole config.
        model: wrapped for several processes or not; left in evaluation mode.
        distributed: whether each process takes its share of the images.
        data_loaders: one a data set; None makes them, with pixels where there is ``normalize``.
        precision, normalize, sink, steps, skip_eval, defer: see ``engine.inference.inference``.

    Returns:
        One entry a data set: (CocoResults, COCO result lists) on rank 0, or with ``defer`` a function that computes
        them; None elsewhere and with ``skip_eval``.
    """
    settings = TestSettings.from_config(cfg)
    model = getattr(model, "module", model)
    synchronize_buffers(model)
    device = next(model.parameters()).device
    preparation = Preparation(precision or Precision(device.type), device, normalize)
    augmentation = make_box_augmentation(cfg, model, preparation.images, keep_pixels=normalize is not None)
    own_loaders = contextlib.ExitStack()
    if data_loaders is None:
        data_loaders = make_data_loader(
            cfg, is_train=False, is_distributed=distributed, keep_pixels=normalize is not None
        )
        for data_loader in data_loaders:
            own_loaders.callback(data_loader.close)
    results = []
    with own_loaders:
        for name, data_loader in zip(settings.dataset_names, data_loaders, strict=True):
            folder = os.path.join(settings.output_dir, "inference", name) if settings.output_dir else None
            if folder:
                mkdir(folder)
            results.append(
                inference(
                    model,
                    data_loader,
                    name,
                    settings.iou_types,
                    settings.box_only,
                    device,
                    settings.expected_results,
                    settings.expected_results_sigma_tol,
                    folder,
                    skip_eval,
                    steps=steps,
                    precision=precision,
                    normalize=normalize,
                    sink=sink,
                    detect=augmentation,
                    oks_sigmas=settings.oks_sigmas,
                    coco_engine=settings.coco_engine,
                    num_resamples=settings.num_resamples,
                    warm_up=settings.warm_up,
                    defer=defer,
                )
            )
            comm.synchronize()
    return results


def figures_of(results: Sequence[Any]) -> Mapping[str, Mapping[str, float]]:
    """The figures of the first data set as {"bbox": {"AP": ...}, ...}; empty where there are none."""
    return results[0][0].results if results and results[0] is not None else {}


@user_errors()
def main(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Run the program.

    Args:
        args: parsed options of ``make_parser``.
        cfg: the config tree with its defaults; stays as it is.
    """
    with start_run(args, cfg, training=False, testing=True) as run:
        precision = Precision.from_config(run.cfg, run.device, use_amp=run.use_amp)
        model = build_trained_model(run.cfg, run, opts=args.opts)
        precision.place_model(model, run.device)
        results = run_tests(
            run.cfg,
            model,
            comm.get_world_size() > 1,
            precision=precision,
            normalize=make_device_normalize(run.cfg, run.device),
            sink=run.sink,
            steps=args.infer_steps,
            skip_eval=args.skip_eval,
        )
        if figures := figures_of(results):
            run.sink.evaluation(figures, iteration=run.iteration)
        make_report(run.cfg, run.output_dir)
        make_last_files(run.cfg, run.sink, run.output_dir)
    comm.destroy_process_group()


def build_trained_model(cfg: CfgNode, run: Run, *, opts: Sequence[str]) -> nn.Module:
    """The network with the weights to evaluate.

    These are, in this order: MODEL.WEIGHT where it was typed after the command; the newest checkpoint of OUTPUT_DIR;
    the MODEL.WEIGHT of the config file; none, with a warning.

    Raises:
        FileNotFoundError, ValueError: the weights cannot be read or do not fit the model in every tensor.
    """
    torch.manual_seed(cfg.SEED)
    model = build_detection_model(cfg)
    checkpointer = DetectronCheckpointer(cfg, model, save_dir=run.output_dir)
    typed = "MODEL.WEIGHT" in opts[::2]
    if typed and cfg.MODEL.WEIGHT:
        if checkpointer.has_checkpoint():
            logger.info("MODEL.WEIGHT was given: %s is not read", checkpointer.get_checkpoint_file())
        checkpointer.load_weights(cfg.MODEL.WEIGHT, strict=True)
    elif checkpointer.has_checkpoint():
        run.iteration = checkpointer.load().get("iteration")
    elif cfg.MODEL.WEIGHT:
        checkpointer.load_weights(cfg.MODEL.WEIGHT, strict=True)
    else:
        logger.warning("No checkpoint in %s and no MODEL.WEIGHT: random weights are evaluated", run.output_dir or "''")
    return model
