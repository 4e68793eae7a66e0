"""The options of tools/ymir_pack_model.py."""

from __future__ import annotations

import argparse
import re

OLD, NEW = "1.1.0", "2.0.0"
VERSIONS = (OLD, NEW)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Pack a trained model for YMIR\'s page "import model"; docs/ymir.md describes the archive.'
    )
    parser.add_argument("weights", help="a .pth file, or the output folder of a training run")
    parser.add_argument("--output", "-o", default="model.tar.gz", help="the archive (default: %(default)s)")
    parser.add_argument("--config-file", help="in place of the config that was saved with the weights")
    parser.add_argument(
        "--class-names", default="", metavar="A,B", help="in the order of the labels (default: the run's)"
    )
    parser.add_argument(
        "--metrics", nargs="+", default=[], metavar="NAME=VALUE", help="mAP, maskAP, ... (default: as the run ended)"
    )
    parser.add_argument(
        "--package-version", choices=VERSIONS, default=NEW, help="1.1.0 for YMIR before 2.0 (default: %(default)s)"
    )
    parser.add_argument("--stage", type=stage_name, default="best", help="name of its stage (default: %(default)s)")
    parser.add_argument("--executor", default="", metavar="IMAGE", help="the image that the model belongs to")
    parser.add_argument("--producer", default="", help="who made it")
    parser.add_argument("--add", nargs="+", default=[], metavar="FILE", help="further files, such as an .onnx")
    return parser


def stage_name(text: str) -> str:
    """A name that the platform takes for a stage.

    Raises:
        argparse.ArgumentTypeError: it would not.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", text):
        raise argparse.ArgumentTypeError(f"letters, digits and _, no digit first, got {text!r}")
    return text
