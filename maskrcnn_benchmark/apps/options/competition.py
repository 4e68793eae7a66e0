"""The options of train.py and predict.py at the root, of which none is needed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from maskrcnn_benchmark.apps.options.common import add_common_arguments

CONFIG = "configs/parking_2022.yaml"
TRAIN_FOLDER = "runs/train/official"
PREDICT_FOLDER = "runs/val/official"
MAX_BYTES = 20_000_000
REPEAT_SUFFIX = ".time.json"  # in place of .yaml: decisions of the official run, beside its config

_VARIABLES = (
    "Environment: DATA_ROOT, the folder of the data (default: the config's, /DATA); CONFIG, another config file; "
    "SKIP_SETUP=1: compile no kernels. Relative paths of the config are those of the repository."
)


def make_train_parser(root: Path) -> argparse.ArgumentParser:
    """The command line of train.py.

    Args:
        root: the repository.
    """
    parser = argparse.ArgumentParser(description="Train the official run; no option is needed", epilog=_VARIABLES)
    _add_common(parser, root, summary=f"{TRAIN_FOLDER}/dllogger.out")
    parser.add_argument("--skip-test", action="store_true", help="do not evaluate at the end")
    parser.add_argument(
        "--resume", action="store_true", help="go on in the output folder, whatever the run in it was made with"
    )
    parser.add_argument(
        "--repeat",
        default="",
        metavar="FILE",
        help="repeat what a run decided by the clock: its time_budget.json, or its folder "
        f"(default: the config's name with {REPEAT_SUFFIX}, where that exists); none: decide anew",
    )
    parser.set_defaults(root=root, max_steps=0, skip_checkpoint=False)
    return parser


def make_predict_parser(root: Path) -> argparse.ArgumentParser:
    """The command line of predict.py.

    Args:
        root: the repository.
    """
    parser = argparse.ArgumentParser(
        description="Detect on the test images with the newest weights of train.py and write the submission; no option "
        "is needed",
        epilog=_VARIABLES,
    )
    _add_common(parser, root, summary=os.devnull)
    folder = str(root / PREDICT_FOLDER)
    parser.add_argument("--output", default=folder, metavar="FOLDER", help="of the submission")
    parser.add_argument(
        "--max-bytes",
        type=int,
        default=MAX_BYTES,
        metavar="N",
        help="size of best_preds_cut.json (default: %(default)s)",
    )
    parser.add_argument(
        "--refine",
        type=int,
        default=-1,
        metavar="N",
        help="with TEST.BBOX_AUG: detect in several views of N images (default: as many as there is time for)",
    )
    parser.set_defaults(root=root)
    return parser


def _add_common(parser: argparse.ArgumentParser, root: Path, *, summary: str) -> None:
    config_file = os.environ.get("CONFIG") or str(root / CONFIG)
    add_common_arguments(parser, config_file=config_file, json_summary=str(root / summary))
