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

SPLITS = ("train", "val", "test")


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
    from maskrcnn_benchmark.apps.cityscapes_to_coco import convert_split  # here: --help needs no torch

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
