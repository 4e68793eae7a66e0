"""An invented ground truth in COCO's format, and detections of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import torch

from maskrcnn_benchmark.ops import rasterize_polygons

NUM_CLASSES, NUM_OBJECTS, NUM_DETECTIONS = 80, 7, 100
HEIGHT, WIDTH = 480, 640


def make_files(folder: Path, num_images: int) -> None:
    """instances.json, bbox.json and segm.json: blobs, and detections of which two in three are moved blobs."""
    random = np.random.RandomState(0)
    angles = np.arange(24) * (2 * np.pi / 24)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    images, annotations, boxes, masks = [], [], [], []
    for number in range(1, num_images + 1):
        images.append({"id": number, "height": HEIGHT, "width": WIDTH, "file_name": f"{number}.jpg"})
        centres = random.rand(NUM_OBJECTS, 2) * (WIDTH, HEIGHT)
        radii = np.exp(random.rand(NUM_OBJECTS, 2) * 3 + 2)
        labels = random.randint(1, NUM_CLASSES + 1, NUM_OBJECTS)
        rings = centres[:, None] + unit * radii[:, None] * (1 + 0.06 * random.randn(NUM_OBJECTS, 24, 1))
        rings = rings.clip(0, (WIDTH, HEIGHT)).round(2)
        areas = _areas(rings)
        for ring, label, area in zip(rings, labels.tolist(), areas.tolist(), strict=True):
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": label, "bbox": _box(ring)}
            annotation |= {"area": area, "iscrowd": int(random.rand() < 0.01), "segmentation": [ring.ravel().tolist()]}
            annotations.append(annotation)
        source = random.randint(NUM_OBJECTS, size=NUM_DETECTIONS)
        is_near = random.rand(NUM_DETECTIONS) < 0.67
        moved = np.where(is_near[:, None], centres[source], random.rand(NUM_DETECTIONS, 2) * (WIDTH, HEIGHT))
        spread = np.exp(random.randn(NUM_DETECTIONS, 2) * 0.15)
        shapes = moved[:, None] + unit * (radii[source] * spread)[:, None]
        shapes = (shapes * (1 + 0.05 * random.randn(NUM_DETECTIONS, 24, 1))).clip(0, (WIDTH, HEIGHT))
        own = np.where(random.rand(NUM_DETECTIONS) < 0.8, labels[source], random.randint(1, 81, NUM_DETECTIONS))
        scores = (is_near * 0.4 + random.rand(NUM_DETECTIONS) * 0.6).round(4).tolist()
        for shape, label, score, text in zip(shapes, own.tolist(), scores, _encode(shapes), strict=True):
            common = {"image_id": number, "category_id": label, "score": score}
            boxes.append({**common, "bbox": _box(shape)})
            masks.append({**common, "segmentation": {"size": [HEIGHT, WIDTH], "counts": text}})
    categories = [{"id": number, "name": str(number)} for number in range(1, NUM_CLASSES + 1)]
    truth = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    for name, content in (("instances", truth), ("bbox", boxes), ("segm", masks)):
        (folder / f"{name}.json").write_bytes(orjson.dumps(content))


def _box(ring: np.ndarray) -> list[float]:
    low = ring.min(axis=0)
    return [*low.round(2).tolist(), *(ring.max(axis=0) - low).round(2).tolist()]


def _areas(rings: np.ndarray) -> np.ndarray:
    x, y = rings[..., 0], rings[..., 1]
    return np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1) / 2).round(2)


def _encode(rings: np.ndarray) -> list[str]:
    count, vertices = rings.shape[:2]
    offsets = torch.arange(count + 1)
    sizes = torch.tensor([[HEIGHT, WIDTH]]).expand(count, 2).contiguous()
    coords = torch.from_numpy(rings.reshape(-1, 2))
    text, ends = rasterize_polygons(coords, offsets * vertices, offsets, sizes)
    whole, bounds = text.numpy().tobytes().decode(), ends.tolist()
    return [whole[a:b] for a, b in pairwise(bounds)]
