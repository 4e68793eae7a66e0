"""Photos with a COCO json for the benchmarks of the data path: from a data set, or invented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import _mappers as mappers

SIZES = ((640, 480), (1280, 960), (2048, 1536))  # width, height
_CATEGORIES, _OBJECTS, _VERTICES = 80, 7, 24  # as many as in COCO


def write_photos(source: Path, part: str, size: tuple[int, int], count: int, folder: Path) -> list[mappers.Record]:
    """Photos of ``size`` with their annotations in ``folder`` and its ``instances.json``; the records of them.

    Landscape photos of 640x480 stay as they are in the file; for other sizes they are enlarged, quality 90.
    """
    document = json.loads((source / "annotations" / f"instances_{part}.json").read_text())
    chosen = [image for image in document["images"] if (image["width"], image["height"]) == SIZES[0]]
    annotated = {each["image_id"] for each in document["annotations"] if not each.get("iscrowd", 0)}
    chosen = [image for image in chosen if image["id"] in annotated][:count]
    if not chosen:
        raise ValueError(f"{source}: {part} has no photo of 640x480 with objects")
    factor = size[0] / SIZES[0][0]
    folder.mkdir(parents=True)
    images, annotations, records = [], [], []
    for image in chosen:
        data = (source / part / image["file_name"]).read_bytes()
        if factor != 1:
            pixels = cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), size, None, 0, 0, 2)
            data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        (folder / image["file_name"]).write_bytes(data)
        image = image | {"width": size[0], "height": size[1]}
        own = [_scaled(each, factor) for each in document["annotations"] if each["image_id"] == image["id"]]
        own = [each for each in own if isinstance(each["segmentation"], list)]
        images.append(image)
        annotations += own
        records.append(image | {"file_name": str(folder / image["file_name"]), "annotations": own})
    document = {"images": images, "annotations": annotations, "categories": document["categories"]}
    (folder / "instances.json").write_text(json.dumps(document))
    return records


def _scaled(annotation: dict[str, Any], factor: float) -> dict[str, Any]:
    rings = annotation["segmentation"]
    if isinstance(rings, list):
        rings = [[value * factor for value in ring] for ring in rings]
    box = [value * factor for value in annotation["bbox"]]
    return annotation | {"bbox": box, "segmentation": rings, "area": annotation["area"] * factor**2}


def invent_photos(count: int, folder: Path) -> None:
    """A data set in COCO's layout with invented photos of 640x480: what is measured where there are no others.

    Soft shapes with some noise, quality 90: a file is about as large as one of COCO's.
    """
    random = np.random.default_rng(0)
    width, height = SIZES[0]
    (folder / "annotations").mkdir(parents=True)
    (folder / "photos").mkdir()
    images, annotations = [], []
    for number in range(1, count + 1):
        coarse = random.uniform(0, 255, (13, 17, 3)).astype(np.float32)
        pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        pixels += cv2.GaussianBlur(random.normal(0, 40, pixels.shape).astype(np.float32), (0, 0), 1.0)
        name = f"{number:06d}.jpg"
        cv2.imwrite(str(folder / "photos" / name), pixels.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for _ in range(_OBJECTS):
            annotations.append(_invented_object(random, len(annotations) + 1, number))
    categories = [{"id": number, "name": f"thing {number}"} for number in range(1, _CATEGORIES + 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / "instances_photos.json").write_text(json.dumps(content))


def _invented_object(random: np.random.Generator, number: int, image: int) -> dict[str, Any]:
    size = np.array(SIZES[0])
    radii = np.exp(random.uniform(2.5, 5, 2))
    angles = np.arange(_VERTICES) * (2 * np.pi / _VERTICES)
    ring = random.uniform(0.1, 0.9, 2) * size + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ring = ring.clip(0, size - 1).round(2)
    (x, y), extent = ring.min(axis=0), np.ptp(ring, axis=0)
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [float(x), float(y), *extent.tolist()],
        "area": float(np.prod(extent) * np.pi / 4),
        "segmentation": [ring.ravel().tolist()],
        "iscrowd": 0,
    }
