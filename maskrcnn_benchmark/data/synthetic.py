"""The generated data set of shapes: COCO files on disk from a seed, so that a demo needs no download.

Each image is drawn from a generator keyed by (seed, split, index): the same arguments give the same files, and a larger
set begins with the images of a smaller one. `ensure_shapes_dataset` is what the data catalogue calls for entries with
`factory: shapes`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from .synthetic_scene import SHAPE_NAMES, Scene, SceneObject, make_scene

GENERATOR_VERSION = 3  # part of the folder's name: raise it when the same arguments give other files
_JPEG_QUALITY = 92
# Shifts the contour of a twice enlarged mask to a quarter pixel inside the true edge of its pixels.
_CONTOUR_SHIFT, _CONTOUR_SCALE = 0.5, 0.5


def ensure_shapes_dataset(
    root: str | os.PathLike[str], *, split: str, num_images: int, seed: int = 0, image_size: int = 256
) -> tuple[str, str]:
    """Generate the data set below `root` unless it is there; return (image folder, annotation file).

    The folder's name carries every argument, and it appears under that name only when it is complete: several
    processes may call this at once, and one that is killed leaves nothing that looks finished.

    Args:
        root: folder that holds generated data sets; created when missing.
        split: any word without a path separator; images of different splits are drawn independently.
        num_images: number of images, at least 1.
        seed: seed of the data set, at least 0.
        image_size: side of the square canvas in pixels.

    Raises:
        ValueError: an argument is out of range.
        PermissionError: `root` cannot be written; the message names the key that moves it.
    """
    if num_images < 1 or seed < 0:
        raise ValueError(f"the shapes data set needs num_images >= 1 and seed >= 0, got {num_images} and {seed}")
    if not split or Path(split).name != split:
        raise ValueError(f"split must be one plain word such as 'train', got {split!r}")
    folder = shapes_folder(root, split=split, num_images=num_images, seed=seed, image_size=image_size)
    ann_file = folder / "annotations" / f"instances_{split}.json"
    if not ann_file.is_file():
        _generate_atomically(folder, split=split, num_images=num_images, seed=seed, image_size=image_size)
    return str(folder / split), str(ann_file)


def shapes_folder(
    root: str | os.PathLike[str], *, split: str, num_images: int, seed: int = 0, image_size: int = 256
) -> Path:
    """Where a data set lies once it is generated; the arguments are those of `ensure_shapes_dataset`."""
    return Path(root) / f"{split}-{num_images}x{image_size}px-seed{seed}-v{GENERATOR_VERSION}"


def image_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """The generator of one image's scene."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def scene_annotations(scene: Scene, *, image_id: int, first_id: int) -> list[dict]:
    """COCO annotations of the scene's visible objects, with ids from `first_id` on.

    Beside COCO's own keys each carries `hidden_fraction`, the share of the object that others cover.
    """
    annotations = []
    for obj in scene.objects:
        rle = mask_utils.encode(np.asfortranarray(obj.visible, dtype=np.uint8))
        if (area := int(mask_utils.area(rle))) == 0:
            continue
        annotations.append(
            {
                "id": first_id + len(annotations),
                "image_id": image_id,
                "category_id": obj.label + 1,
                "bbox": mask_utils.toBbox(rle).tolist(),
                "area": area,
                "iscrowd": int(obj.is_crowd),
                "segmentation": segmentation_of(obj),
                "hidden_fraction": round(float(obj.hidden_fraction), 4),
            }
        )
    return annotations


def segmentation_of(obj: SceneObject) -> list[list[float]] | dict:
    """The visible mask in COCO's form: polygons when it has no hole, compressed RLE otherwise.

    Crowds are uncompressed RLE, as in COCO's own files. Polygons decode to exactly the same mask with pycocotools.
    """
    if obj.is_crowd:
        return {"size": list(obj.visible.shape), "counts": _run_lengths(obj.visible)}
    polygons = _simple_polygons(obj.visible)
    if polygons is not None:
        return polygons
    rle = mask_utils.encode(np.asfortranarray(obj.visible, dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def _generate_atomically(folder: Path, *, split: str, num_images: int, seed: int, image_size: int) -> None:
    """Write everything into a temporary neighbour, then rename it."""
    logger = logging.getLogger(__name__)
    logger.info("Generating %d images of the shapes data set (%s) in %s", num_images, split, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except PermissionError as error:
        raise PermissionError(
            f"cannot create the generated data set in {folder.parent}; set DATASETS.DATA_DIR or the environment "
            "variable DATA_DIR to a folder that can be written"
        ) from error
    try:
        _write_split(scratch, split=split, num_images=num_images, seed=seed, image_size=image_size)
        scratch.chmod(0o755)
        try:
            scratch.rename(folder)
        except OSError:
            # Another process was faster: its files are the same. Anything else is an error.
            if not (folder / "annotations" / f"instances_{split}.json").is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_split(folder: Path, *, split: str, num_images: int, seed: int, image_size: int) -> None:
    (folder / split).mkdir()
    (folder / "annotations").mkdir()
    images, annotations = [], []
    for index in range(num_images):
        scene = make_scene(image_rng(seed, split, index), image_size=image_size)
        image_id, file_name = index + 1, f"{index + 1:06d}.jpg"
        path = str(folder / split / file_name)
        if not cv2.imwrite(path, scene.image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
            raise OSError(f"could not write {path}; is the disk full?")
        images.append({"id": image_id, "file_name": file_name, "height": image_size, "width": image_size})
        annotations += scene_annotations(scene, image_id=image_id, first_id=len(annotations) + 1)
    content = {
        "info": {"description": "Generated shapes", "version": str(GENERATOR_VERSION), "seed": seed, "split": split},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name, "supercategory": "shape"} for i, name in enumerate(SHAPE_NAMES)],
    }
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def _simple_polygons(mask: np.ndarray) -> list[list[float]] | None:
    """Outer contours of a mask bool [H, W] without holes, as few vertices as reproduce it exactly; None otherwise."""
    enlarged = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, hierarchy = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (hierarchy[0, :, 3] >= 0).any():
        return None
    for tolerance in (1.0, 0.7, 0.0):
        rings = [cv2.approxPolyDP(contour, tolerance, True) if tolerance else contour for contour in contours]
        polygons = [((ring[:, 0] + _CONTOUR_SHIFT) * _CONTOUR_SCALE).ravel().tolist() for ring in rings]
        if all(len(polygon) >= 6 for polygon in polygons) and _decodes_to(polygons, mask):
            return polygons
    return None


def _decodes_to(polygons: list[list[float]], mask: np.ndarray) -> bool:
    rles = mask_utils.frPyObjects(polygons, *mask.shape)
    return bool((mask_utils.decode(mask_utils.merge(rles)) == mask).all())


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Run lengths in column order, beginning with the zeros: COCO's uncompressed counts."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.concatenate([[0], changes, [mask.size]])
    counts = np.diff(ends).tolist()
    return counts[:-1] if counts[-1] == 0 else counts
