"""Convert Cityscapes to COCO's format: python tools/cityscapes/convert_cityscapes_to_coco.py --datadir RAW --outdir OUT

RAW holds gtFine/{train,val,test} as it is unpacked (also below gtFine_trainvaltest/). OUT receives
instancesonly_filtered_gtFine_{train,val,test}.json, which the data sets cityscapes_fine_instanceonly_seg_* read.

The objects of the eight evaluated classes become annotations, with the pixels that are visible of them; category ids
are fixed, 1 to 8. Groups of objects that were not told apart are left out. Image names have no folder: docs/datasets.md
shows how to put all images into one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils
from tqdm import tqdm

from maskrcnn_benchmark.data.datasets.cityscapes_ids import (
    EVALUATED,
    INSTANCES_PER_LABEL,
    LABEL_IDS,
    instances_of,
    read_instance_ids,
)
from maskrcnn_benchmark.structures.polygons import mask_to_polygons

SPLITS = ("train", "val", "test")
SUFFIX = "_gtFine_instanceIds.png"
CATEGORY_IDS = {name: number for number, name in enumerate(EVALUATED, start=1)}
_CATEGORY_OF_LABEL = {LABEL_IDS[name]: category for name, category in CATEGORY_IDS.items()}


def annotations_of(ids: np.ndarray, *, polygons: bool) -> list[dict[str, Any]]:
    """The objects of an instance image (integers [H, W]) as COCO annotations without ids.

    Args:
        ids: the instance image.
        polygons: write exact polygons; False: compressed RLE, a sixth of the size.
    """
    rows = []
    for value, (x1, y1, x2, y2), mask in instances_of(ids):
        category = _CATEGORY_OF_LABEL.get(value // INSTANCES_PER_LABEL)
        if category is None:
            continue
        segmentation: Any
        if polygons:
            segmentation = [(ring.astype(int) + np.array([x1, y1])).ravel().tolist() for ring in mask_to_polygons(mask)]
        else:
            rle = mask_utils.encode(np.asfortranarray(ids == value, dtype=np.uint8))
            segmentation = {"size": list(ids.shape), "counts": rle["counts"].decode()}
        box, area = [x1, y1, x2 - x1 + 1, y2 - y1 + 1], int(mask.sum())
        rows.append({"category_id": category, "bbox": box, "area": area, "segmentation": segmentation, "iscrowd": 0})
    return rows


def convert_split(folder: Path, *, polygons: bool) -> dict[str, Any]:
    """The content of one json.

    Args:
        folder: gtFine/<split>, with a folder for each city.
        polygons: see :func:`annotations_of`.

    Raises:
        FileNotFoundError: when there is no instance image.
        ValueError: when one is damaged.
    """
    files = sorted(folder.glob(f"*/*{SUFFIX}"))
    if not files:
        raise FileNotFoundError(f"there is no */*{SUFFIX} in {folder}; unpack gtFine_trainvaltest.zip there")
    images, annotations = [], []
    for image_id, path in enumerate(tqdm(files, desc=folder.name, disable=None, leave=False), start=1):
        ids = read_instance_ids(path)
        height, width = ids.shape
        stem = path.name.removesuffix(SUFFIX)
        images.append(
            {
                "id": image_id,
                "file_name": f"{stem}_leftImg8bit.png",
                "seg_file_name": path.name,
                "height": height,
                "width": width,
            }
        )
        for row in annotations_of(ids, polygons=polygons):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **row})
    categories = [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()]
    return {"images": images, "categories": categories, "annotations": annotations}


def make_parser() -> argparse.ArgumentParser:
    """The options of the program."""
    parser = argparse.ArgumentParser(description="Convert Cityscapes to COCO's format")
    parser.add_argument("--dataset", default="cityscapes_instance_only", help="cityscapes_instance_only, the only one")
    parser.add_argument("--datadir", type=Path, required=True, help="folder that holds gtFine")
    parser.add_argument("--outdir", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--polygons", action="store_true", help="polygons instead of RLE, for programs that read no RLE"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    args = make_parser().parse_args(arguments)
    if args.dataset != "cityscapes_instance_only":
        print(f"--dataset {args.dataset} is not supported; there is cityscapes_instance_only", file=sys.stderr)
        return 1
    places = [args.datadir / "gtFine_trainvaltest" / "gtFine", args.datadir / "gtFine", args.datadir]
    root = next((place for place in places if any((place / split).is_dir() for split in SPLITS)), None)
    if root is None:
        print(f"there is no gtFine with {', '.join(SPLITS)} below {args.datadir}", file=sys.stderr)
        return 1
    args.outdir.mkdir(parents=True, exist_ok=True)
    try:
        for split in [split for split in SPLITS if (root / split).is_dir()]:
            content = convert_split(root / split, polygons=args.polygons)
            (args.outdir / f"instancesonly_filtered_gtFine_{split}.json").write_text(json.dumps(content))
            print(f"{split}: {len(content['images'])} images, {len(content['annotations'])} objects")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
