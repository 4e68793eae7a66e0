"""The options of tools/test_net.py."""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.apps.options.common import add_common_arguments


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Evaluate a detector on DATASETS.TEST")
    add_common_arguments(
        parser,
        config_file="/workspace/object_detection/configs/e2e_mask_rcnn_R_50_FPN_1x.yaml",
        json_summary="dllogger_inference.out",
    )
    parser.add_argument("--skip-eval", action="store_true", help="write the results, but do not evaluate them")
    parser.add_argument("--infer_steps", type=int, default=-1, metavar="N", help="batches to run; -1 for all")
    return parser
