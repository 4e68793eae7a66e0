"""The options of tools/train_net.py."""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.apps.options.common import add_common_arguments
from maskrcnn_benchmark.utils import exit_status


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train a detector on DATASETS.TRAIN, then evaluate it",
        epilog="A run that was interrupted goes on from its last checkpoint in OUTPUT_DIR when it is started again. "
        f"SIGTERM and SIGUSR1 save the state first and end with status {exit_status.STOPPED}.",
    )
    add_common_arguments(parser, config_file="", json_summary="dllogger.out")
    parser.add_argument("--max_steps", type=int, default=0, metavar="N", help="replaces SOLVER.MAX_ITER")
    parser.add_argument("--skip-test", action="store_true", help="do not evaluate at the end")
    parser.add_argument("--skip_checkpoint", action="store_true", help="save no checkpoints")
    return parser
