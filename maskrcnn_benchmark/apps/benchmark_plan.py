"""The rows of a benchmark before they are measured: one config each."""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.options.benchmark import TASKS, VARIANTS
from maskrcnn_benchmark.config import validate
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.utils import comm

# Learning rate on invented data: the weights, and with them the work, stay as they are.
STEADY_RATE = 1e-8
# (warm-up, measured, stage) steps where none are asked for.
_STEPS = {"cuda": (10, 50, 10), "cpu": (2, 5, 2)}


@dataclass(frozen=True)
class Plan:
    """One row.

    Args:
        task: one of TASKS.
        variant: as typed.
        cfg: the row's config, frozen and validated.
        batch_size: images a process.
        dtype: as the config has it.
        is_deterministic: as the config has it.
        warm_up, iterations, stage_iterations: see ``benchmark_report.measure``.
    """

    task: str
    variant: str
    cfg: CfgNode
    batch_size: int
    dtype: str
    is_deterministic: bool
    warm_up: int
    iterations: int
    stage_iterations: int

    @property
    def num_steps(self) -> int:
        """Steps of all kinds."""
        return self.warm_up + self.iterations + self.stage_iterations

    def describe(self) -> dict[str, Any]:
        """The head of the row."""
        return {"task": self.task, "variant": self.variant, "dtype": self.dtype, "batch_size": self.batch_size}


def split_list(text: str) -> list[str]:
    """The parts of a list with commas; a comma within brackets is no border."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def split_variant(variant: str) -> list[str]:
    """The keys and values that a variant stands for, in turn.

    Raises:
        ValueError: a part of it is neither a name nor KEY=VALUE.
    """
    pairs: list[str] = []
    for part in variant.split("+"):
        if "=" in part:
            pairs += part.split("=", 1)
        elif part in VARIANTS:
            pairs += VARIANTS[part]
        else:
            raise ValueError(f"--variants: {part!r} is neither KEY=VALUE nor one of {', '.join(VARIANTS)}")
    return pairs


def build_plan(
    cfg: CfgNode,
    args: argparse.Namespace,
    device: torch.device,
    task: str,
    variant: str,
    batch_size: int | None,
    dtype: str | None,
) -> Plan:
    """The plan of one row.

    Args:
        cfg: the config of all rows.
        args: synthetic, image_size, warmup, iterations, stage_iterations.
        device: of this process.
        task, variant: see `Plan`.
        batch_size: images a process; None: the config's.
        dtype: of DTYPE; None: the config's.

    Raises:
        ValueError: task, variant or a setting is wrong.
    """
    if task not in TASKS:
        raise ValueError(f"--task must be of {', '.join(TASKS)}, got {task!r}")
    is_train, world_size = task == "train", comm.get_world_size()
    cfg = cfg.clone()
    cfg.merge_from_list([*split_variant(variant), *(["DTYPE", dtype] if dtype is not None else [])])
    section = cfg.SOLVER if is_train else cfg.TEST
    if batch_size is not None:
        section.IMS_PER_BATCH = batch_size * world_size
    if args.synthetic:
        cfg.SOLVER.BASE_LR = STEADY_RATE
    if is_train and cfg.MODEL.CAPTURE != "eager" and not cfg.INPUT.SHAPE_BUCKETS:
        cfg.INPUT.SHAPE_BUCKETS = build_shapes(cfg, args.image_size)
    cfg.freeze()
    validate(cfg, world_size=world_size, training=is_train, testing=not is_train)
    warm_up, iterations, stage_iterations = (
        default if asked is None else asked
        for asked, default in zip(
            (args.warmup, args.iterations, args.stage_iterations), _STEPS[device.type], strict=True
        )
    )
    if iterations == 0:
        iterations = max(
            _build_whole_length(cfg, args.synthetic, is_train) - is_train * (warm_up + stage_iterations), 1
        )
    if min(warm_up, iterations, stage_iterations) < 0:
        raise ValueError("--warmup, --iterations and --stage-iterations must be 0 or more")
    images = section.IMS_PER_BATCH // world_size
    return Plan(task, variant, cfg, images, cfg.DTYPE, cfg.DETERMINISTIC, warm_up, iterations, stage_iterations)


def build_shapes(cfg: CfgNode, image_size: tuple[int, int] | None) -> tuple[tuple[int, int], ...]:
    """The shapes of padded batches to capture where INPUT.SHAPE_BUCKETS names none: of landscape and upright photos.

    Args:
        cfg: reads INPUT.MIN_SIZE_TRAIN and MAX_SIZE_TRAIN, and DATALOADER.SIZE_DIVISIBILITY.
        image_size: (height, width) of all photos; None: what the config resizes to.
    """
    step = max(cfg.DATALOADER.SIZE_DIVISIBILITY, 1)
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    shorter = sizes if isinstance(sizes, int) else max(sizes)
    lengths = image_size or (shorter, cfg.INPUT.MAX_SIZE_TRAIN)
    height, width = (-(-length // step) * step for length in lengths)
    return ((height, width),) if image_size else ((height, width), (width, height))


def _build_whole_length(cfg: CfgNode, synthetic: bool, is_train: bool) -> int:
    """Steps of the whole run that a config describes."""
    if is_train:
        return cfg.SOLVER.MAX_ITER
    if synthetic:
        raise ValueError("--iterations 0 stands for the whole test set, which --synthetic has not; give a number")
    return len(make_data_loader(cfg, is_train=False, is_distributed=comm.get_world_size() > 1)[0])


@contextlib.contextmanager
def kept_settings(device: torch.device) -> Iterator[None]:
    """Undo in the end what a row sets for the whole process, and give its memory back."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    cudnn_benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = cudnn_benchmark
        if "torch._dynamo" in sys.modules:  # importing it takes seconds
            torch.compiler.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
