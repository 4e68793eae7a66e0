"""Check a data set in COCO's format: python tools/check_dataset.py ANNOTATIONS.json IMAGE_FOLDER

Prints what it holds, what a run would refuse (errors) and what training would leave out (warnings).
Ends with 0 when there is no error, 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from tqdm import tqdm

from maskrcnn_benchmark.data.datasets.coco_check import check_coco


def _show(title: str, lines: Sequence[str], limit: int) -> None:
    if lines:
        print(f"\n{len(lines)} {title}")
        for line in lines[:limit]:
            print(f"  {line}")
        if len(lines) > limit:
            print(f"  ... and {len(lines) - limit} more (--limit)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(description="Check a data set in COCO's format")
    parser.add_argument("ann_file", help="the json")
    parser.add_argument("img_dir", help="folder of the images")
    parser.add_argument("--no-decode", action="store_true", help="do not decode the images: fast, but finds less")
    parser.add_argument("--limit", type=int, default=20, help="lines of each kind that are printed (default 20)")
    args = parser.parse_args(arguments)
    bar = partial(tqdm, desc="images", disable=None, leave=False)
    try:
        report = check_coco(args.ann_file, args.img_dir, decode=not args.no_decode, progress=bar)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for what, count in report.counts.items():
        print(f"{count:>9} {what}")
    if report.objects:
        print("\nobjects of each category")
        for name, count in report.objects.items():
            print(f"{count:>9} {name}")
        print(f"\nset MODEL.ROI_BOX_HEAD.NUM_CLASSES {len(report.objects) + 1}")
    _show("warnings (training leaves these out)", report.warnings, args.limit)
    _show("errors", report.errors, args.limit)
    print("\nno errors" if not report.errors else "\nthe data set cannot be used before the errors are mended")
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
