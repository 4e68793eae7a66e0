"""The options of tools/check_dataset.py."""

from __future__ import annotations

import argparse
from pathlib import Path

_DESCRIPTION = """Check data sets: what they hold, what a run would refuse (errors), what training would leave out
(warnings). Ends with 0 when there is no error, 1 otherwise. Three ways to say which:
  --config-file my.yaml              all data sets of DATASETS.TRAIN and DATASETS.TEST
  img_dir=images mask_dir=masks ...  the keys of an entry of DATASETS.CUSTOM
  train.json images/                 annotation file and image folder in COCO's format"""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", metavar="DATA", help="see above; with --config-file: KEY VALUE ...")
    parser.add_argument("--config-file", metavar="FILE", help="the config of a run")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw some pictures with their objects, as a png")
    parser.add_argument("--no-decode", action="store_true", help="do not decode the images: fast, but finds less")
    parser.add_argument("--limit", type=int, default=20, help="lines of each kind that are printed (default 20)")
    return parser
