"""Loaders from the config."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.config.classes import class_count, class_count_key, only_proposes
from maskrcnn_benchmark.config.validate import LOADERS, PREFETCH
from maskrcnn_benchmark.data import datasets as dataset_classes
from maskrcnn_benchmark.data.broken_images import make_broken_images
from maskrcnn_benchmark.data.collate_batch import BatchCollator
from maskrcnn_benchmark.data.datasets.base import DetectionDataset
from maskrcnn_benchmark.data.loaders import DecodingLoader, WatchedLoader, make_decoding_loader
from maskrcnn_benchmark.data.open_dataset import make_opened_dataset, validate_class_names
from maskrcnn_benchmark.data.samplers import (
    DistributedSampler,
    GroupedBatchSampler,
    IterationBasedBatchSampler,
    KeyedBatchSampler,
    LeftOver,
    samples_left,
)
from maskrcnn_benchmark.data.transforms import DeviceNormalize, build_transforms
from maskrcnn_benchmark.data.views import collate_pictures
from maskrcnn_benchmark.solver.world_size import Progress
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size

Loader = WatchedLoader | DecodingLoader  # both yield (ImageList, Targets, indices)


def make_dataset(cfg: CfgNode, name: str, *, is_train: bool) -> DetectionDataset:
    """The data set ``name`` of the catalogue, with the transforms of training or testing.

    Args:
        cfg: reads INPUT, SEED, and what :func:`make_opened_dataset`, :func:`validate_num_classes` and
            :func:`validate_num_keypoints` read.
        name: a published name, or one of DATASETS.CUSTOM.
        is_train: leave out images without objects, unless they are to be kept, and augment.

    Raises:
        FileNotFoundError, KeyError: see :func:`make_opened_dataset`.
        ValueError: see :func:`make_opened_dataset`; also when the model has other classes or another number of
            keypoints, or there are no masks or keypoints to train on.
    """
    dataset = make_opened_dataset(cfg, name, is_train=is_train, transforms=build_transforms(cfg, is_train))
    validate_class_names(cfg, dataset, name)
    validate_num_classes(cfg, dataset, name)
    if is_train and cfg.MODEL.MASK_ON and not dataset.has_masks:
        raise ValueError(
            f"data set {name} has no segmentation to train masks on; set MODEL.MASK_ON to False, or add segmentations"
        )
    if cfg.MODEL.KEYPOINT_ON:
        validate_num_keypoints(cfg, dataset, name, is_train=is_train)
    return dataset


def validate_num_classes(cfg: CfgNode, dataset: DetectionDataset, name: str) -> None:
    """Check that the model has one class for each category of the data and one for the background.

    Args:
        cfg: reads the number of classes, and whether the model only proposes: then they play no part.
        dataset: the data set.
        name: of the data set, for the message.

    Raises:
        ValueError: when they differ.
    """
    key, num_classes, needed = class_count_key(cfg), class_count(cfg), len(dataset.categories) + 1
    if not only_proposes(cfg) and num_classes != needed:
        raise ValueError(
            f"data set {name} lists {needed - 1} categories, so the model needs {needed} classes (one more for the "
            f"background), but {key} is {num_classes}; set {key} {needed}, or train on data with {num_classes - 1} "
            "categories"
        )


def validate_num_keypoints(cfg: CfgNode, dataset: DetectionDataset, name: str, *, is_train: bool) -> None:
    """Check that the model has one heat map for each keypoint of the data.

    Args:
        cfg: reads MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES.
        dataset: the data set.
        name: of the data set, for the message.
        is_train: then there must be keypoints.

    Raises:
        ValueError: when the numbers differ, or there are no keypoints to train on.
    """
    num_maps, num_keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES, len(dataset.keypoint_names)
    if dataset.has_keypoints and num_maps != num_keypoints:
        raise ValueError(
            f"data set {name} has {num_keypoints} keypoints an object, but MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES is "
            f"{num_maps}; set MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES {num_keypoints}"
        )
    if is_train and not dataset.has_keypoints:
        raise ValueError(
            f"data set {name} has no keypoints to train on; set MODEL.KEYPOINT_ON to False, or add keypoints"
        )


def make_device_normalize(cfg: CfgNode, device: torch.device) -> DeviceNormalize | None:
    """What normalises the batches of `make_data_loader(..., keep_pixels=True)`; None: let the workers do it.

    Args:
        cfg: reads DATALOADER.PREFETCH and INPUT.
        device: where the batches go.

    Raises:
        ValueError: DATALOADER.PREFETCH is none of its values.
    """
    choice = cfg.DATALOADER.PREFETCH
    if choice not in PREFETCH:
        raise ValueError(f"DATALOADER.PREFETCH must be one of {', '.join(PREFETCH)}, got {choice!r}")
    if choice == "never":
        return None
    return DeviceNormalize(build_transforms(cfg, is_train=False).normalize, device)


def make_data_loader(
    cfg: CfgNode,
    is_train: bool = True,
    is_distributed: bool = False,
    start_iter: int = 0,
    *,
    keep_pixels: bool = False,
    progress: Progress | None = None,
) -> tuple[Loader, int] | list[Loader]:
    """The loader of training, or one loader for each test data set.

    A loader yields (ImageList, Targets, tuple of dataset indices); with TEST.BBOX_AUG, for testing, the pictures as
    they are in place of the ImageList, which `ImageViews` takes. What it yields depends on the config, the number of
    processes and the iteration alone, never on workers or on where a run was resumed. Which backend decodes changes
    nothing but the last bits of the pixels.

    Args:
        cfg: reads DATASETS, DATALOADER, INPUT, SEED, MODEL, and SOLVER (training) or TEST.
        is_train: which of the two.
        is_distributed: give each process of the group its share; a test sample goes to one process only.
        start_iter: training iterations that are done already.
        keep_pixels: the images stay bytes, for `make_device_normalize`; otherwise they are the network's input.
        progress: of a training run that may have had other numbers of processes before; None: it had not.

    Returns:
        Training: (loader, iterations per epoch), the loader as long as SOLVER.MAX_ITER. Testing: a list of loaders.

    Raises:
        FileNotFoundError: see :func:`make_dataset`.
        ValueError: see :func:`make_dataset`; also when the batch cannot be divided among the processes.
    """
    world_size, rank = (get_world_size(), get_rank()) if is_distributed else (1, 0)
    section = "SOLVER" if is_train else "TEST"
    images_per_batch = getattr(cfg, section).IMS_PER_BATCH
    if images_per_batch < 1 or images_per_batch % world_size:
        raise ValueError(
            f"{section}.IMS_PER_BATCH ({images_per_batch}) must be a positive multiple of the number of processes "
            f"({world_size}); set it to {max(images_per_batch // world_size, 1) * world_size}"
        )
    datasets = _make_datasets(cfg, is_train=is_train)
    sees_views = cfg.TEST.BBOX_AUG.ENABLED and not is_train
    loaders = []
    for dataset in datasets:
        dataset.broken_images = make_broken_images(cfg, len(dataset), is_train=is_train)
        if sees_views:
            dataset.transforms = None
        is_upright = np.zeros(len(dataset), dtype=bool)
        if cfg.DATALOADER.ASPECT_RATIO_GROUPING:
            is_upright = dataset.aspect_ratios() >= 1
        share = functools.partial(_share_of_process, dataset, is_upright, is_train, cfg.SEED)
        left, first_iter = LeftOver(), 0
        if progress is not None:
            first_iter = progress.first_iteration
            left = samples_left(progress.earlier, len(dataset), seed=cfg.SEED, make_batches=share)
        batches = share(world_size, rank, images_per_batch // world_size, left)
        if is_train:
            batches = IterationBasedBatchSampler(
                batches, cfg.SOLVER.MAX_ITER, start_iter, first_iter=first_iter, epochs=left.epochs
            )
        loaders.append(
            _make_loader(cfg, dataset, KeyedBatchSampler(batches), sees_views=sees_views, keep_pixels=keep_pixels)
        )
    if is_train:
        return loaders[0], max(len(datasets[0]) // images_per_batch, 1)
    return loaders


def _share_of_process(
    dataset: DetectionDataset,
    groups: Sequence[bool],
    is_train: bool,
    seed: int,
    world_size: int,
    rank: int,
    images_per_process: int,
    left: LeftOver,
) -> GroupedBatchSampler:
    """The batches of one process in an epoch; what its sampler does is said there."""
    sampler = DistributedSampler(
        dataset, world_size, rank, shuffle=is_train, seed=seed, pad=is_train, samples_left=left.samples
    )
    return GroupedBatchSampler(sampler, groups, images_per_process)


def _make_datasets(cfg: CfgNode, *, is_train: bool) -> list[DetectionDataset]:
    """The data sets of testing, or the one of training."""
    key = "TRAIN" if is_train else "TEST"
    names = getattr(cfg.DATASETS, key)
    names = (names,) if isinstance(names, str) else names
    if not names:
        raise ValueError(f"DATASETS.{key} names no data set; set it, for example DATASETS.{key} \"('coco_2017_val',)\"")
    datasets = [make_dataset(cfg, name, is_train=is_train) for name in names]
    return [dataset_classes.ConcatDataset(datasets)] if is_train and len(datasets) > 1 else datasets


def _make_collator(cfg: CfgNode, *, keep_pixels: bool) -> BatchCollator:
    """What makes a batch of samples, which it normalises unless pixels are to be kept."""
    normalize = None if keep_pixels else build_transforms(cfg, is_train=False).normalize
    return BatchCollator(cfg.DATALOADER.SIZE_DIVISIBILITY, normalize=normalize, shapes=cfg.INPUT.SHAPE_BUCKETS)


def _make_loader(
    cfg: CfgNode, dataset: DetectionDataset, batch_sampler: KeyedBatchSampler, *, sees_views: bool, keep_pixels: bool
) -> Loader:
    """The loader of one data set, by the backend that the config asks for."""
    if cfg.DATALOADER.BACKEND not in LOADERS:
        raise ValueError(f"DATALOADER.BACKEND must be one of {', '.join(LOADERS)}, got {cfg.DATALOADER.BACKEND!r}")
    num_workers = cfg.DATALOADER.NUM_WORKERS
    if num_workers < 0:
        raise ValueError(f"DATALOADER.NUM_WORKERS must not be negative, got {num_workers}")
    options: dict[str, Any] = {
        "num_workers": num_workers,
        "timeout": cfg.DATALOADER.TIMEOUT,
        "persistent_workers": num_workers > 0,
        "worker_init_fn": _init_worker,
        "pin_memory": cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available(),
    }
    if sees_views:
        return WatchedLoader(dataset, batch_sampler=batch_sampler, collate_fn=collate_pictures, **options)
    decoding = make_decoding_loader(cfg, dataset, batch_sampler, keep_pixels=keep_pixels, **options)
    if decoding is not None:
        return decoding
    dataset.defer_images()
    collate = _make_collator(cfg, keep_pixels=keep_pixels)
    return WatchedLoader(dataset, batch_sampler=batch_sampler, collate_fn=collate, **options)


def _init_worker(worker_id: int) -> None:
    # The workers are the parallelism: threads of OpenCV inside them only get in each other's way.
    cv2.setNumThreads(0)
