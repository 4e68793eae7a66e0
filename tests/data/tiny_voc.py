"""A Pascal VOC folder of four small images that holds one of everything that is unusual."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

# id -> (height, width)
SIZES = {"000007": (60, 80), "000002": (80, 60), "2008_000001": (50, 90), "000009": (60, 60)}
# id -> (name, difficult or None for no such word, xmin, ymin, xmax, ymax counted from 1)
OBJECTS = {
    "000007": [("dog", 0, 11, 6, 40, 50), (" Person ", 0, 31, 11, 80, 60), ("dog", 1, 61, 1, 70, 9)],
    "000002": [("car", None, 6, 6, 50.5, 70)],
    "2008_000001": [("bottle", 1, 5, 5, 20, 40)],
    "000009": [("tvmonitor", 0, 1, 1, 60, 60), ("cat", 0, 10, 20, 10, 50), ("sheep", 0, 40, 40, 99, 99)],
}
# The person of the layout challenge: parts with names and boxes of their own.
PART = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"


def voc_xml(image_id: str) -> str:
    """The annotation file of an image."""
    height, width = SIZES[image_id]
    objects = []
    for name, difficult, *corners in OBJECTS[image_id]:
        box = "".join(
            f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        )
        word = "" if difficult is None else f"<difficult>{difficult}</difficult>"
        objects.append(f"<object><name>{name}</name>{word}<bndbox>{box}</bndbox>{PART}</object>")
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{image_id}.jpg</filename>{size}{''.join(objects)}</annotation>"


def write_tiny_voc(folder: Path, splits: tuple[str, ...] = ("train",)) -> Path:
    """Write the folder; each split lists all images. Returns ``folder``."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image_id, (height, width) in SIZES.items():
        (folder / "Annotations" / f"{image_id}.xml").write_text(voc_xml(image_id))
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "JPEGImages" / f"{image_id}.jpg"), pixels)
    for split in splits:
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in SIZES))
    return folder
