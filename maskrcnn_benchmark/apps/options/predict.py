"""The options of tools/predict.py."""

from __future__ import annotations

import argparse


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Detect on pictures and videos: writes each again with boxes, masks, labels and scores, and "
        "predictions.json in COCO format. Ends with status 1 when a file is broken; the others are done."
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="pictures, videos, folders or glob patterns")
    parser.add_argument("--camera", type=int, metavar="N", help="record camera N, 0 for the first, until Ctrl-C")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop a video or camera after S seconds")
    parser.add_argument("--weights", required=True, help="a .pth file, or the output folder of a training run")
    parser.add_argument("--config-file", help="in place of the config that was saved with the weights")
    parser.add_argument("--output", default="predictions", help="folder of the results (default: %(default)s)")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="least score (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda when available")
    parser.add_argument("--no-pictures", action="store_true", help="write predictions.json only")
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help="further settings of the config")
    return parser
