"""What YMIR exports as annotations: ark, voc and seg-coco, with the habits of its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from pycocotools import mask as rle

from tests.ymir.platform.photos import Photo, Thing


def ark(photo: Photo, class_names: Sequence[str], *, old: bool) -> str:
    """One line an object: index, inclusive corners, quality, angle; YMIR 1.1 wrote neither spaces nor the last two."""
    lines = []
    for index, thing in enumerate(_known(photo, class_names)):
        x, y, w, h = thing.box
        fields = [class_names.index(thing.class_name), x, y, x + w - 1, y + h - 1]
        if not old:
            fields += [-1.0 if index % 2 == 0 else 0.75, 0.0]
        elif index % 2:
            fields += [-1.0]
        lines.append(("," if old else ", ").join(map(str, fields)) + "\n")
    return "".join(lines)


def voc(photo: Photo, class_names: Sequence[str], container_path: str) -> str:
    """The usual tree with inclusive corners, words in ``truncated``, and fields of YMIR's own."""
    objects = []
    for index, thing in enumerate(_known(photo, class_names)):
        x, y, w, h = thing.box
        extra = "<tags><shift>night</shift></tags><box_quality>0.75</box_quality><cm>0</cm>" if index % 2 else ""
        objects.append(
            f"<object><name>{escape(thing.class_name)}</name><pose>unknown</pose><truncated>unknown</truncated>"
            f"<occluded>0</occluded><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w - 1}</xmax>"
            f"<ymax>{y + h - 1}</ymax><rotate_angle>0.0</rotate_angle></bndbox><difficult>0</difficult>{extra}</object>"
        )
    return (
        f"<annotation><folder></folder><filename>{escape(container_path)}</filename><source><database>unknown"
        "</database></source><segmented>0</segmented>"
        f"<size><width>{photo.width}</width><height>{photo.height}</height><depth>3</depth></size>"
        f"<cks><camera>7</camera></cks><image_quality>0.9</image_quality>{''.join(objects)}</annotation>"
    )


def coco(photos: Sequence[Photo], names: Sequence[str], class_names: Sequence[str]) -> str:
    """One file for training and validation together.

    Categories begin at 0 and stand in no order; ids of images do not begin at 1. Of the objects some are polygons, some
    compressed RLE as text, and every fifth is a box alone, whose segmentation is an empty dict and whose area is 0.
    """
    images, annotations = [], []
    for number, (photo, name) in enumerate(zip(photos, names, strict=True)):
        image = 11 + 3 * number
        images.append({
            "id": image, "file_name": name, "width": photo.width, "height": photo.height,
            "date_captured": "2023-11-14 22:13:20", "license": 1, "coco_url": "", "flickr_url": "",
        })  # fmt: skip
        for thing in _known(photo, class_names):
            box = thing.box
            mark = len(annotations) % 5
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": class_names.index(thing.class_name),
                "iscrowd": 0, "bbox": list(box), "confidence": -1.0,
                "area": 0 if mark == 4 else int(thing.mask.sum()),
                "segmentation": {} if mark == 4 else as_rle(thing.mask) if mark % 2 else [thing.ring],
            })  # fmt: skip
    categories = [{"id": index, "name": name, "supercategory": "object"} for index, name in enumerate(class_names)]
    return json.dumps({
        "images": images, "licenses": [{"id": 1, "name": "", "url": ""}],
        "categories": categories[::-1], "annotations": annotations,
    })  # fmt: skip


def as_rle(mask: np.ndarray) -> dict[str, object]:
    """Compressed RLE with its counts as text."""
    code = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"counts": code["counts"].decode("ascii"), "size": [int(side) for side in code["size"]]}


def _known(photo: Photo, class_names: Sequence[str]) -> list[Thing]:
    """Objects of other classes are not exported."""
    return [thing for thing in photo.things if thing.class_name in class_names]


def write(path: Path, text: str) -> None:
    """A file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
