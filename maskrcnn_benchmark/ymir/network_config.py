"""The network's config as a job's settings make it, and as it is kept beside the weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yacs.config import CfgNode

from maskrcnn_benchmark.config.classes import set_class_count
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.dataset import TRAIN, VAL, TrainingData
from maskrcnn_benchmark.ymir.settings import DETECTION, INSTANCE_SEGMENTATION, JobSettings

DEFAULT_CONFIG_FILE = "configs/e2e_mask_rcnn_R_50_FPN_1x.yaml"
_DEFAULT_EVALUATIONS = 10  # of a run that names no val_interval
_LOG_LINES = 100  # at least: the platform is told of the progress with each


@dataclass(frozen=True)
class TrainingPlan:
    """What the platform is to be told of the run, apart from the config.

    Args:
        cfg: the whole config.
        max_iter: of the run.
        has_masks: whether the network predicts masks.
        weights: to begin with; "" for none.
        output_dir: of the run.
    """

    cfg: CfgNode
    max_iter: int
    has_masks: bool
    weights: str
    output_dir: str


def make_training_plan(
    defaults: CfgNode,
    settings: JobSettings,
    data: TrainingData,
    *,
    root: str,
    output_dir: str,
    num_processes: int,
    weights: str,
) -> TrainingPlan:
    """The defaults, then config_file, then the keys of the template, then cfg_options.

    A schedule of another length than the config file's keeps its proportions.

    Args:
        defaults: the config tree; stays as it is.
        settings: of the job.
        data: to train on.
        root: folder of the code, at which config_file begins.
        output_dir: of the run.
        num_processes: that share each batch.
        weights: to begin with; "" for none.

    Raises:
        JobError: object_type asks for masks that the config does not have.
        ValueError, KeyError, OSError: config_file or cfg_options is wrong.
    """
    cfg = defaults.clone()
    cfg.defrost()
    config_file = find_config_file(settings, root)
    cfg.merge_from_file(config_file)
    published_iterations = cfg.SOLVER.MAX_ITER
    has_masks = _wants_masks(settings, data)
    if has_masks and not cfg.MODEL.MASK_ON and "MODEL.MASK_ON" not in settings.options[::2]:
        raise JobError(
            ReturnCode.CONFIG,
            f"{config_file} has no mask head (MODEL.MASK_ON False), which object_type {INSTANCE_SEGMENTATION} needs; "
            f"choose one that has, such as {DEFAULT_CONFIG_FILE}",
        )
    given: dict[str, Any] = {
        "DATASETS.TRAIN": (TRAIN,),
        "DATASETS.TEST": (VAL,),
        "DATASETS.CUSTOM": [
            {"name": name, "img_dir": "/", "ann_file": os.path.abspath(path)}
            for name, path in ((TRAIN, data.train_file), (VAL, data.val_file))
        ],
        "DATASETS.CLASSES": tuple(settings.class_names),
        "OUTPUT_DIR": output_dir,
        "MODEL.WEIGHT": weights,
        "MODEL.DEVICE": device_name(settings, cfg.MODEL.DEVICE),
        "MODEL.MASK_ON": has_masks,
        "SOLVER.MAX_ITER": settings.integer("max_iter", published_iterations, least=1),
        "SOLVER.IMS_PER_BATCH": settings.batch_size * num_processes,
        "TEST.IMS_PER_BATCH": settings.batch_size * num_processes,
        "TRACKING.BACKENDS": ("jsonl",),
        # Whoever wants these can set them in cfg_options.
        "TEST.BOOTSTRAP": 0,
        "PER_EPOCH_EVAL": False,
    }
    if settings.text("num_workers_per_gpu"):
        given["DATALOADER.NUM_WORKERS"] = settings.num_workers
    if (rate := settings.number("learning_rate", 0.0)) > 0:
        given["SOLVER.BASE_LR"] = rate
    if not weights:
        given["MODEL.BACKBONE.FREEZE_CONV_BODY_AT"] = 0  # random weights: nothing is frozen
    merge(cfg, given, ())
    set_class_count(cfg, len(settings.class_names) + 1)
    cfg.merge_from_list(settings.options)
    merge(cfg, build_schedule(cfg, settings, published_iterations), settings.options[::2])
    # Each evaluation ends with a stage of the result, whose weights must be those that were evaluated.
    cfg.TEST.IN_BACKGROUND = False
    return TrainingPlan(cfg, cfg.SOLVER.MAX_ITER, cfg.MODEL.MASK_ON, cfg.MODEL.WEIGHT, cfg.OUTPUT_DIR)


def build_schedule(cfg: CfgNode, settings: JobSettings, published_iterations: int) -> dict[str, Any]:
    """Keys that follow the length of the run.

    Args:
        cfg: with the final SOLVER.MAX_ITER.
        settings: val_interval is read.
        published_iterations: SOLVER.MAX_ITER of the config file.
    """
    max_iter = cfg.SOLVER.MAX_ITER
    period = settings.integer("val_interval", max(max_iter // _DEFAULT_EVALUATIONS, 1), least=1)
    derived: dict[str, Any] = {
        "SOLVER.TEST_PERIOD": period,
        "SOLVER.CHECKPOINT_PERIOD": period,
        "SOLVER.CHECKPOINT_KEEP": 2,  # to go on from; those of the result are elsewhere
        "SOLVER.LOG_PERIOD": max(min(cfg.SOLVER.LOG_PERIOD, max_iter // _LOG_LINES), 1),
    }
    if max_iter != published_iterations:
        ratio = max_iter / published_iterations
        derived["SOLVER.STEPS"] = tuple(sorted({max(round(step * ratio), 1) for step in cfg.SOLVER.STEPS}))
        derived["SOLVER.WARMUP_ITERS"] = min(cfg.SOLVER.WARMUP_ITERS, max(max_iter // 10, 1))
    return derived


def merge(cfg: CfgNode, values: dict[str, Any], but: Sequence[str]) -> None:
    """Set keys that are not among those that the user set."""
    cfg.merge_from_list([word for key, value in values.items() if key not in but for word in (key, value)])


def device_name(settings: JobSettings, default: str) -> str:
    """MODEL.DEVICE for the GPUs that a job may use."""
    ids = settings.gpu_ids
    if ids is None:
        return default
    return "cpu" if not ids else f"cuda:{ids[0]}" if len(ids) == 1 else "cuda"


def find_config_file(settings: JobSettings, root: str) -> str:
    """The config file of a training, seen from the code's folder.

    Raises:
        JobError: it does not exist.
    """
    name = settings.text("config_file", DEFAULT_CONFIG_FILE)
    path = os.path.join(root, name)
    if not os.path.isfile(path):
        raise JobError(ReturnCode.CONFIG, f"config_file {name!r} does not exist in {root}; see its folder configs")
    return path


def make_portable_config(cfg: CfgNode) -> str:
    """The config as YAML without what is true on this machine alone: what is kept beside the weights."""
    tree = yaml.safe_load(cfg.dump())
    for section, key in (("", "PATHS_CATALOG"), ("", "OUTPUT_DIR"), ("MODEL", "WEIGHT"), ("MODEL", "DEVICE")):
        (tree[section] if section else tree).pop(key)
    for key in ("TRAIN", "TEST", "CUSTOM", "DATA_DIR"):
        tree["DATASETS"].pop(key)
    return yaml.safe_dump(tree, default_flow_style=None)


def _wants_masks(settings: JobSettings, data: TrainingData) -> bool:
    kind = settings.object_type
    return data.has_masks if kind is None else kind != DETECTION
