"""Convert the Penn-Fudan pedestrian data set to COCO's format: python tools/convert_penn_fudan.py SOURCE DESTINATION

SOURCE is the unpacked archive PennFudanPed with PNGImages/ and PedMasks/. DESTINATION receives train/ and test/ (copies
of the images) and annotations/instances_train.json and instances_test.json with one category, person. Every instance of
a mask becomes an object with an exact RLE.

The split is fixed: the images in the order of the MD5 of their names without suffix; the first 120 are for training,
the others for testing. So it depends neither on the file system nor on how the photographs are numbered (the first 74
come from one place, the rest from another).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_utils
from tqdm import tqdm

NUM_TRAIN = 120
CATEGORY_ID = 1


def split_names(names: Sequence[str]) -> dict[str, list[str]]:
    """The names of each split; see the top of this file."""
    order = sorted(names, key=lambda name: hashlib.md5(name.encode(), usedforsecurity=False).hexdigest())
    return {"train": sorted(order[:NUM_TRAIN]), "test": sorted(order[NUM_TRAIN:])}


def annotations_of(mask: np.ndarray) -> list[dict[str, Any]]:
    """The instances of an id mask (integers [H, W], 0 is background) as COCO annotations without ids."""
    rows = []
    for instance in np.unique(mask[mask > 0]):
        rle = mask_utils.encode(np.asfortranarray(mask == instance, dtype=np.uint8))
        rows.append(
            {
                "category_id": CATEGORY_ID,
                "bbox": mask_utils.toBbox(rle).tolist(),
                "area": int(mask_utils.area(rle)),
                "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode()},
                "iscrowd": 0,
            }
        )
    return rows


def convert_split(source: Path, destination: Path, split: str, names: Sequence[str]) -> tuple[int, int]:
    """Write one split; returns the numbers of images and objects.

    Raises:
        FileNotFoundError: when an image has no mask.
        ValueError: when a mask cannot be read, or its size is not the image's.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    folder = destination / split
    folder.mkdir(parents=True, exist_ok=True)
    for name in tqdm(names, desc=split, disable=None, leave=False):
        image_file, mask_file = source / "PNGImages" / f"{name}.png", source / "PedMasks" / f"{name}_mask.png"
        if not mask_file.is_file():
            raise FileNotFoundError(f"{image_file} has no mask {mask_file}")
        mask, image = cv2.imread(str(mask_file), cv2.IMREAD_UNCHANGED), cv2.imread(str(image_file))
        if mask is None or image is None or mask.shape != image.shape[:2]:
            raise ValueError(f"{image_file} and {mask_file} must be images of one size, the mask with one channel")
        shutil.copyfile(image_file, folder / image_file.name)
        height, width = mask.shape
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": image_file.name, "height": height, "width": width})
        for row in annotations_of(mask):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **row})
    (destination / "annotations").mkdir(exist_ok=True)
    content = {
        "info": {"description": f"Penn-Fudan pedestrians, {split}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": CATEGORY_ID, "name": "person"}],
    }
    (destination / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return len(images), len(annotations)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(description="Convert the Penn-Fudan pedestrian data set to COCO's format")
    parser.add_argument("source", type=Path, help="folder PennFudanPed with PNGImages/ and PedMasks/")
    parser.add_argument("destination", type=Path, help="folder to write")
    args = parser.parse_args(arguments)
    names = [path.stem for path in (args.source / "PNGImages").glob("*.png")]
    if not names:
        print(f"there are no images at {args.source / 'PNGImages'}", file=sys.stderr)
        return 1
    try:
        for split, members in split_names(names).items():
            num_images, num_objects = convert_split(args.source, args.destination, split, members)
            print(f"{split}: {num_images} images, {num_objects} objects")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"""written to {args.destination}; to use it:
  DATASETS.CUSTOM "[{{'name': 'penn_fudan_train', 'img_dir': '{args.destination}/train', \
'ann_file': '{args.destination}/annotations/instances_train.json'}}, \
{{'name': 'penn_fudan_test', 'img_dir': '{args.destination}/test', \
'ann_file': '{args.destination}/annotations/instances_test.json'}}]"
  DATASETS.TRAIN "('penn_fudan_train',)" DATASETS.TEST "('penn_fudan_test',)" MODEL.ROI_BOX_HEAD.NUM_CLASSES 2""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
