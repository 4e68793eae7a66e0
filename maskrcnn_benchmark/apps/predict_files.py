"""Prediction on files, folders and glob patterns, pictures and COCO json out: what tools/predict.py does."""

from __future__ import annotations

import argparse
import glob
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from maskrcnn_benchmark.apps.drawing import readable_scale
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.data.image_io import is_truncated
from maskrcnn_benchmark.utils.allocator import keep_pages
from maskrcnn_benchmark.utils.logger import setup_logger

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

logger = logging.getLogger("maskrcnn_benchmark.predict")


def make_parser() -> argparse.ArgumentParser:
    """The options of tools/predict.py."""
    parser = argparse.ArgumentParser(
        description="Detect on pictures: writes one picture each with boxes, masks, labels and scores, and "
        "predictions.json in COCO format. Ends with status 1 when a picture is broken; the others are done."
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders or glob patterns")
    parser.add_argument("--weights", required=True, help="a .pth file, or the output folder of a training run")
    parser.add_argument("--config-file", help="in place of the config that was saved with the weights")
    parser.add_argument("--output", default="predictions", help="folder of the results (default: %(default)s)")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="least score (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda when available")
    parser.add_argument("--no-pictures", action="store_true", help="write predictions.json only")
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help="further settings of the config")
    return parser


@user_errors()
def main(args: argparse.Namespace) -> int:
    """Run the program with parsed options of ``make_parser``; return its exit status, 1 when a picture is broken."""
    keep_pages()
    setup_logger("maskrcnn_benchmark", "", 0)
    predictor = Predictor.from_checkpoint(
        args.weights,
        config_file=args.config_file,
        options=args.opts,
        device=args.device,
        confidence_threshold=args.confidence_threshold,
    )
    errors = predict_files(predictor, args.images, args.output, draw=not args.no_pictures)
    logger.info("Results are in %s", args.output)
    if errors:
        logger.error("%d pictures could not be read: %s", len(errors), "; ".join(errors))
    return 1 if errors else 0


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
            logger.warning("%s", error)
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
