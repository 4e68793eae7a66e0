"""The options that training and testing share."""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.utils.launch import get_local_rank


def add_common_arguments(parser: argparse.ArgumentParser, *, config_file: str, json_summary: str) -> None:
    """The options that train and test share, with their published names; both defaults are given."""
    parser.add_argument("--config-file", default=config_file, metavar="FILE", help="config to merge over the defaults")
    parser.add_argument(
        "--local_rank",
        "--local-rank",
        dest="local_rank",
        type=int,
        default=get_local_rank(),
        help="number of this process on its machine; launchers set it",
    )
    parser.add_argument("--fp16", action="store_true", help="mixed precision with float16, whatever DTYPE says")
    parser.add_argument("--amp", action="store_true", help="the same as --fp16")
    parser.add_argument("--json-summary", default=json_summary, metavar="FILE", help="DLLogger's JSON stream goes here")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values that win over the file"
    )
