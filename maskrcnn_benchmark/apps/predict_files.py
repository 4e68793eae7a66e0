"""Prediction on files, folders and glob patterns: pictures and COCO json out."""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from maskrcnn_benchmark.apps.drawing import readable_scale
from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.data.image_io import is_truncated

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

logger = logging.getLogger("maskrcnn_benchmark.predict")


def predict_files(
    predictor: Predictor, inputs: Sequence[str], output_dir: str | os.PathLike[str], *, draw: bool = True
) -> list[str]:
    """Predict on files, folders and glob patterns; write `<name>.jpg` for each picture and predictions.json (COCO).

    A broken picture is reported and passed over. The json holds images, categories and annotations with scores.

    Returns:
        One message for each picture that could not be read.

    Raises:
        FileNotFoundError: an input matches no picture.
    """
    paths = find_images(inputs)
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    images, annotations, errors = [], [], []
    for path, name in zip(paths, _unique_names(paths), strict=True):
        try:
            image = read_upright(path)
        except (ValueError, OSError) as error:
            logger.error("%s", error)
            errors.append(str(error))
            continue
        prediction = predictor(image)
        height, width = image.shape[:2]
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": str(path), "height": height, "width": width})
        annotations += predictor.coco_annotations(prediction, image_id=image_id, first_id=len(annotations) + 1)
        if draw:
            picture = predictor.draw(image, prediction, scale=readable_scale(image))
            _write_picture(output_dir / f"{name}.jpg", picture)
        logger.info("%s: %d detections", path, len(prediction))
    categories = [{"id": c.id, "name": c.name, "supercategory": ""} for c in predictor.categories]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (output_dir / "predictions.json").write_text(json.dumps(content))
    return errors


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Picture files named by paths, folders (their pictures, by name) and glob patterns, each once, in this order.

    Raises:
        FileNotFoundError: an input matches nothing.
    """
    found: dict[Path, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.exists():
            matches = [path]
        else:
            matches = [Path(p) for p in sorted(glob.glob(given, recursive=True)) if Path(p).is_file()]
        if not matches:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            raise FileNotFoundError(f"no picture at {given!r}; give files, folders with {kinds}, or glob patterns")
        found.update(dict.fromkeys(matches))
    return list(found)


def read_upright(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3] BGR, turned upright as its EXIF data say.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no picture, or truncated.
    """
    data = Path(path).read_bytes()
    if is_truncated(data):
        raise ValueError(f"{path} is truncated: it ends after {len(data)} bytes; copy it again")
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ValueError(f"{path} is not a picture that OpenCV can read ({len(data)} bytes)")
    return image


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """File stems, numbered where several pictures share one."""
    seen: dict[str, int] = {}
    names = []
    for path in paths:
        seen[path.stem] = seen.get(path.stem, 0) + 1
        names.append(path.stem if seen[path.stem] == 1 else f"{path.stem}_{seen[path.stem]}")
    return names


def _write_picture(path: Path, picture: np.ndarray) -> None:
    encoded, data = cv2.imencode(path.suffix, picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not encoded:
        raise OSError(f"OpenCV could not encode {path}")
    path.write_bytes(data.tobytes())
