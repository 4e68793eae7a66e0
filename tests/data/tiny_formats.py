"""The same four pictures with the same objects in every format that DATASETS.CUSTOM knows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from pycocotools import mask as mask_utils

HEIGHT, WIDTH = 48, 64
CLASSES = ("bolt", "nut")
# Picture -> objects (class, x, y, width, height) in whole pixels; the last picture shows none.
OBJECTS = {
    "a": [("nut", 4, 6, 20, 16), ("bolt", 30, 10, 24, 30)],
    "b": [("bolt", 8, 4, 16, 36)],
    "sub/c": [("nut", 2, 2, 30, 20), ("nut", 36, 24, 24, 20)],
    "empty": [],
}


Objects = dict[str, list[tuple[str, int, int, int, int]]]


def many_objects(count: int) -> Objects:
    """As many pictures with an object of each class, at places by a formula."""
    return {
        f"{number:04d}": [("bolt", 2 + number % 7, 4, 20, 18 + number % 5), ("nut", 34, 20 + number % 6, 22, 20)]
        for number in range(count)
    }


def write_images(folder: Path, objects: Objects = OBJECTS, suffix: str = ".jpg") -> Path:
    """Rectangles, in a colour for each class, on a grey ground; returns ``folder``."""
    colours = {"bolt": (40, 40, 220), "nut": (220, 160, 20)}
    for name, items in objects.items():
        pixels = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
        for label, x, y, width, height in items:
            pixels[y : y + height, x : x + width] = colours.get(label, (60, 200, 90))
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels)
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _corners(x: int, y: int, width: int, height: int) -> list[list[int]]:
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def write_coco(folder: Path, pictures: Objects = OBJECTS) -> dict[str, Any]:
    write_images(folder / "images", pictures)
    ids = {name: number for number, name in enumerate(pictures)}
    annotations = [
        {"image_id": ids[name], "category_id": CLASSES.index(label) + 1, "bbox": [x, y, w, h], "area": w * h,
         "iscrowd": 0, "segmentation": [np.ravel(_corners(x, y, w, h)).tolist()]}
        for name, objects in pictures.items() for label, x, y, w, h in objects
    ]  # fmt: skip
    content = {
        "images": [
            {"id": ids[name], "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH} for name in pictures
        ],
        "annotations": [{"id": number, **item} for number, item in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)],
    }
    _write(folder / "annotations.json", json.dumps(content))
    return {"img_dir": f"{folder}/images", "ann_file": f"{folder}/annotations.json"}


def write_voc(folder: Path, pictures: Objects = OBJECTS) -> dict[str, Any]:
    write_images(folder / "images", pictures)
    for name, objects in pictures.items():
        items = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>"
            f"<ymax>{y + h}</ymax></bndbox></object>"
            for label, x, y, w, h in objects
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        _write(folder / "xml" / f"{name}.xml", f"<annotation>{size}{items}</annotation>")
    return {"img_dir": f"{folder}/images", "xml_dir": f"{folder}/xml"}


def write_labelme(folder: Path, pictures: Objects = OBJECTS) -> dict[str, Any]:
    """Images and json files in one folder."""
    write_images(folder, pictures)
    for name, objects in pictures.items():
        shapes = [
            {"label": label, "shape_type": "polygon", "group_id": None, "points": _corners(x, y, w, h)}
            for label, x, y, w, h in objects
        ]
        content = {"imagePath": f"{Path(name).name}.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes}
        _write(folder / f"{name}.json", json.dumps({"version": "5.5.0", "flags": {}, "imageData": None, **content}))
    return {"json_dir": str(folder)}


def write_yolo(folder: Path, pictures: Objects = OBJECTS) -> dict[str, Any]:
    """Polygons; the picture without objects has no txt."""
    write_images(folder / "images" / "train", pictures)
    scale = np.array([WIDTH, HEIGHT])
    for name, objects in pictures.items():
        lines = [
            f"{CLASSES.index(label)} {' '.join(map(str, np.ravel(_corners(x, y, w, h) / scale)))}\n"
            for label, x, y, w, h in objects
        ]
        if lines:
            _write(folder / "labels" / "train" / f"{name}.txt", "".join(lines))
    content = {"path": str(folder), "train": "images/train", "val": "images/train", "names": dict(enumerate(CLASSES))}
    _write(folder / "data.yaml", yaml.safe_dump(content))
    return {"data_yaml": f"{folder}/data.yaml", "split": "train"}


def write_instance_png(folder: Path, pictures: Objects = OBJECTS) -> dict[str, Any]:
    write_images(folder / "images", pictures)
    mapping = {}
    for name, objects in pictures.items():
        ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for number, (_, x, y, w, h) in enumerate(objects, start=1):
            ids[y : y + h, x : x + w] = number
        path = folder / "masks" / f"{name}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), ids)
        mapping[name] = {str(number): label for number, (label, *_) in enumerate(objects, start=1)}
    _write(folder / "classes.json", json.dumps(mapping))
    return {"img_dir": f"{folder}/images", "mask_dir": f"{folder}/masks", "mapping_file": f"{folder}/classes.json"}


# Writes the pictures below a folder and gives the keys of the entry.
FORMATS: dict[str, Callable[..., dict[str, Any]]] = {
    "coco": write_coco,
    "voc": write_voc,
    "labelme": write_labelme,
    "yolo": write_yolo,
    "instance_png": write_instance_png,
}
WITHOUT_MASKS = ("voc",)


def masks_of(targets: Any) -> list[np.ndarray]:
    """The masks of an image, filled by pycocotools."""
    polygons = targets.polygons
    masks = []
    for first, last in itertools.pairwise(polygons.instance_offsets):
        bounds = polygons.ring_offsets[first : last + 1]
        rings = [polygons.coords[a:b].ravel().tolist() for a, b in itertools.pairwise(bounds)]
        rles = mask_utils.frPyObjects(rings, *targets.image_size)
        masks.append(mask_utils.decode(mask_utils.merge(rles)).astype(bool))
    return masks
