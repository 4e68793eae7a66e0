"""The options of tools/verify_submission.py."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from maskrcnn_benchmark.apps.options.competition import CONFIG, MAX_BYTES


def make_parser(root: Path) -> argparse.ArgumentParser:
    """The command line.

    Args:
        root: the repository that is handed in.
    """
    parser = argparse.ArgumentParser(
        description="Check what is handed in, as the organisers will run it: train.py and predict.py without flags, "
        "twice, in clean copies of the tracked files and on a sample of the data; equal bits, format, size, time",
        epilog="Exit status: 0 if nothing is wrong, 1 if something is, 2 if it cannot be checked.",
    )
    config = os.environ.get("CONFIG") or str(root / CONFIG)
    parser.add_argument(
        "--config-file", default=config, metavar="FILE", help="of the official run (default: %(default)s)"
    )
    data = os.environ.get("DATA_ROOT", "/DATA")
    parser.add_argument("--data", default=data, metavar="FOLDER", help="with train/ and test/ (default: %(default)s)")
    parser.add_argument(
        "--train-images", type=int, default=64, metavar="N", help="of the sample (default: %(default)s)"
    )
    parser.add_argument("--test-images", type=int, default=48, metavar="N", help="of the sample (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=30, metavar="N", help="of training (default: %(default)s)")
    parser.add_argument("--train-hours", type=float, default=36.0, metavar="H", help="allowed (default: %(default)s)")
    parser.add_argument("--predict-hours", type=float, default=3.0, metavar="H", help="allowed (default: %(default)s)")
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES, metavar="N", help="allowed (default: %(default)s)")
    parser.add_argument("--work", default="", metavar="FOLDER", help="for the copies; stays (default: one that goes)")
    parser.add_argument("--json", default="", metavar="FILE", help="the report as JSON goes here")
    parser.set_defaults(root=root)
    return parser
