"""Batches of invented photos for measurements of speed: sizes, objects and polygons as in COCO, no files.

The proportions were counted on 160 photos of COCO 2017 with their 1,505 objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from yacs.config import CfgNode

from maskrcnn_benchmark.config.classes import class_count
from maskrcnn_benchmark.data.collate_batch import BatchCollator
from maskrcnn_benchmark.data.image_targets import ImageKeypoints, ImagePolygons, ImageTargets
from maskrcnn_benchmark.data.transforms import build_transforms
from maskrcnn_benchmark.data.transforms.transforms import resized_size
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets

Batch = tuple[ImageList, Targets, tuple[int, ...]]

# (height, width) of landscape photos and how often each comes; one photo in four is upright.
_SIZES = (((480, 640), 0.37), ((427, 640), 0.39), ((375, 500), 0.12), ((333, 500), 0.06), ((512, 640), 0.06))
_CYCLE, _UPRIGHT = 4, 1  # of so many batches this one is upright
# Logarithms of: objects of a photo, side of an object by side of the photo, width by height, vertices of a ring.
_COUNT = (1.7, 0.95)
_SIDE = (-2.27, 1.0)
_ASPECT = (-0.14, 0.72)
_VERTICES = (2.74, 0.68)
_MOST_OBJECTS, _MOST_VERTICES = 60, 200
_TWO_RINGS = 0.08  # objects that are seen in two parts
_UNLABELLED = 0.3  # share of the keypoints


class SyntheticLoader:
    """Gives the same few batches round and round, as long as a run is.

    Args:
        batches: what a loader yields.
        length: number of batches to give.
    """

    def __init__(self, batches: Sequence[Batch], length: int) -> None:
        self.batches = tuple(batches)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        return (self.batches[index % len(self.batches)] for index in range(self.length))


def make_synthetic_loader(
    cfg: CfgNode,
    *,
    is_train: bool,
    num_images: int,
    length: int,
    rank: int = 0,
    num_batches: int = 4,
    image_size: tuple[int, int] | None = None,
    keep_pixels: bool = False,
    pin_memory: bool = False,
) -> SyntheticLoader:
    """A loader of invented batches, which depend on SEED, the rank and the settings alone.

    The second of each four batches is of upright photos, so that a warm-up of two steps meets both shapes.

    Args:
        cfg: reads INPUT, SEED, DATALOADER.SIZE_DIVISIBILITY and the numbers of classes and keypoints.
        is_train: resize as in training, or as in testing.
        num_images: of a batch.
        length: of the loader.
        rank: of the process.
        num_batches: how many differ.
        image_size: (height, width) of every photo, in place of COCO's sizes and the resizing.
        keep_pixels: see `make_data_loader`.
        pin_memory: lay the batches into page-locked memory.
    """
    transforms = build_transforms(cfg, is_train=is_train)
    resize = transforms.geometry[0]
    collate = BatchCollator(
        cfg.DATALOADER.SIZE_DIVISIBILITY,
        normalize=None if keep_pixels else transforms.normalize,
        shapes=cfg.INPUT.SHAPE_BUCKETS,
    )
    batches = []
    for index in range(num_batches):
        rng = np.random.default_rng([cfg.SEED, rank, index])
        is_upright = index % _CYCLE == _UPRIGHT
        samples = []
        for sample in range(num_images):
            size = image_size
            if size is None:
                shorter = resize.min_sizes[int(rng.random() * len(resize.min_sizes))]
                size = resized_size(_draw_size(rng, is_upright), min_size=shorter, max_size=resize.max_size)
            targets = draw_targets(rng, size, num_classes=class_count(cfg))
            if cfg.MODEL.KEYPOINT_ON:
                keypoints = draw_keypoints(rng, targets.boxes, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES)
                targets = replace(targets, keypoints=keypoints)
            samples.append((draw_pixels(rng, size), targets, index * num_images + sample))
        batch: Any = collate(samples)
        if pin_memory:
            batch = (batch[0].pin_memory(), batch[1].pin_memory(), batch[2])
        batches.append(batch)
    return SyntheticLoader(batches, length)


def _draw_size(rng: np.random.Generator, is_upright: bool) -> tuple[int, int]:
    sizes, shares = zip(*_SIZES, strict=True)
    height, width = sizes[rng.choice(len(sizes), p=shares)]
    return (width, height) if is_upright else (height, width)


def draw_pixels(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Coarse patches with fine noise, uint8 [H, W, 3]."""
    height, width = size
    coarse = rng.integers(20, 236, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    noise = rng.integers(0, 20, (height, width, 3), dtype=np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)[:height, :width] + noise


def draw_targets(rng: np.random.Generator, size: tuple[int, int], *, num_classes: int) -> ImageTargets:
    """Objects of a photo of size (height, width), one at least; each polygon fits its box."""
    height, width = size
    count = int(np.clip(np.exp(rng.normal(*_COUNT)), 1, _MOST_OBJECTS))
    side = np.exp(rng.normal(*_SIDE, count)) * np.sqrt(height * width)
    stretch = np.exp(rng.normal(*_ASPECT, count) / 2)
    limits = np.float64([width - 1, height - 1])
    extents = np.clip(np.stack([side * stretch, side / stretch], axis=1), 4, limits)
    corners = rng.random((count, 2)) * (limits - extents)
    boxes = np.concatenate([corners, corners + extents], axis=1)
    rings_per_object = 1 + (rng.random(count) < _TWO_RINGS)
    rings = []
    for corner, extent, parts in zip(corners, extents, rings_per_object, strict=True):
        # the parts of an object stand side by side in its box
        part = extent / [parts, 1]
        rings += [draw_ring(rng, corner + np.float64([index * part[0], 0]), part) for index in range(parts)]
    return ImageTargets(
        boxes=boxes.astype(np.float32),
        labels=rng.integers(1, num_classes, count),
        image_size=size,
        polygons=ImagePolygons(
            coords=np.concatenate(rings).astype(np.float32),
            ring_offsets=np.cumsum([0, *map(len, rings)]),
            instance_offsets=np.cumsum([0, *rings_per_object]),
        ),
    )


def draw_keypoints(rng: np.random.Generator, boxes: np.ndarray, num_keypoints: int) -> ImageKeypoints:
    """Keypoints anywhere in their boxes [G, 4]."""
    places = rng.random((len(boxes), num_keypoints, 2))
    visibility = 2.0 * (rng.random((len(boxes), num_keypoints, 1)) >= _UNLABELLED)
    points = boxes[:, None, :2] + places * (boxes[:, None, 2:] - boxes[:, None, :2])
    points = np.concatenate([points * (visibility > 0), visibility], axis=2).astype(np.float32)
    return ImageKeypoints(points, mirrored=np.arange(num_keypoints))


def draw_ring(rng: np.random.Generator, corner: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """A dented ellipse [V, 2] in the box at ``corner`` with sides ``extent``, (x, y)."""
    count = int(np.clip(np.exp(rng.normal(*_VERTICES)), 4, _MOST_VERTICES))
    angles = (np.arange(count) + rng.random(count) / 2) * (2 * np.pi / count)
    radius = rng.uniform(0.7, 1.0, count)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None]
    low, high = circle.min(0), circle.max(0)
    return corner + (circle - low) / (high - low) * extent
