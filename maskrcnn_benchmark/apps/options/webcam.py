"""The options of demo/webcam.py."""

from __future__ import annotations

import argparse


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Show what a model detects in the pictures of a camera")
    parser.add_argument(
        "--config-file",
        default="configs/caffe2/e2e_mask_rcnn_R_50_FPN_1x_caffe2.yaml",
        metavar="FILE",
        help="config of the model, whose MODEL.WEIGHT is loaded (default: %(default)s)",
    )
    parser.add_argument("--confidence-threshold", type=float, default=0.7, help="least score (default: %(default)s)")
    parser.add_argument("--min-image-size", type=int, default=224, help="shorter side in pixels (default: %(default)s)")
    parser.add_argument("--show-mask-heatmaps", action="store_true", help="show mask probabilities in a grid")
    parser.add_argument("--masks-per-dim", type=int, default=2, help="columns and rows of the grid")
    parser.add_argument("--camera", type=int, default=0, metavar="N", help="number of the camera (default: 0)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")
    return parser
