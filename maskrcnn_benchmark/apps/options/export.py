"""The options of tools/export.py."""

from __future__ import annotations

import argparse

FORMATS = ("onnx", "pt2", "portable")
PRECISIONS = ("fp32", "fp16", "int8")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Write a trained network as ONNX or as a program of torch.export, one file for each size. "
        "docs/export.md says what each one needs."
    )
    parser.add_argument("--weights", required=True, help="a .pth file, or the output folder of a training run")
    parser.add_argument("--config-file", help="in place of the config that was saved with the weights")
    parser.add_argument("--output", default="exported", help="folder of the results (default: %(default)s)")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=["onnx"],
        help="onnx; pt2: torch.export with the package's ops; portable: torch.export without (default: onnx)",
    )
    parser.add_argument(
        "--size",
        nargs="+",
        metavar="HxW",
        help="canvases on which pictures are laid (default: those of the test settings, landscape and portrait)",
    )
    parser.add_argument("--batch", type=int, default=1, help="pictures at once (default: %(default)s)")
    parser.add_argument(
        "--input",
        choices=("uint8", "float32"),
        default="uint8",
        help="pixels, normalised in the file, or normalised input (default: %(default)s)",
    )
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, default=["fp32"], help="of the ONNX files (default: fp32)"
    )
    parser.add_argument("--calibrate", nargs="+", metavar="IMAGE", help="pictures from which int8 takes its ranges")
    parser.add_argument("--check", nargs="+", metavar="IMAGE", help="compare each file with PyTorch on these pictures")
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help="further settings of the config")
    return parser
