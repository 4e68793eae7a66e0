"""What train.py does: the official run in its fixed folder, gone on with where it was interrupted."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.apps import train
from maskrcnn_benchmark.apps.competition.places import make_train_folder, make_weight_file, use_data_root
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.manifest import read_manifest
from maskrcnn_benchmark.apps.manifest_facts import make_config_facts
from maskrcnn_benchmark.apps.options.competition import REPEAT_SUFFIX
from maskrcnn_benchmark.apps.start import build_config
from maskrcnn_benchmark.checkpoint.history import FINAL, newest_checkpoint

# Settings on which no weight depends, and the one that names the device as it was found.
_FREE = (
    "OUTPUT_DIR", "PATHS_CATALOG", "REPORT", "MODEL.DEVICE", "MODEL.WEIGHT", "DATASETS.DATA_DIR",
    "DATALOADER.NUM_WORKERS", "DATALOADER.TIMEOUT", "PROCESS_TIMEOUT", "SOLVER.LOG_PERIOD", "SOLVER.CHECKPOINT_",
    "SOLVER.MAX_TIME", "TEST.", "TRACKING.", "MLPERF.",
)  # fmt: skip
_SHOWN = 5  # settings in a message


@user_errors()
def main(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Run the program.

    Args:
        args: parsed options of ``make_train_parser``.
        cfg: the config tree with its defaults; stays as it is.
    """
    use_data_root()
    folder = make_train_folder(args, cfg)
    repeat = find_decisions(args)
    args.opts += ["OUTPUT_DIR", folder, "MODEL.WEIGHT", make_weight_file(args, cfg)]
    args.opts += ["SOLVER.MAX_TIME_REPEAT", repeat] if repeat else []
    if not args.resume:
        if is_finished(folder):
            if os.environ.get("RANK", "0") == "0":
                sys.stdout.write(
                    f"{folder} holds a run that came to its end, so there is nothing to do. To train anew, move the "
                    "folder away; to go on with another config, use --resume\n"
                )
            return
        validate_same_run(folder, build_config(args, cfg))
    os.makedirs(os.path.dirname(args.json_summary) or ".", exist_ok=True)
    train.main(args, cfg)


def find_decisions(args: argparse.Namespace) -> str:
    """The file whose decisions are to be repeated; "" for none.

    Args:
        args: parsed options of ``make_train_parser``.
    """
    if args.repeat:
        return "" if args.repeat == "none" else args.repeat
    beside = Path(args.config_file).with_suffix(REPEAT_SUFFIX)
    return str(beside) if beside.is_file() else ""


def is_finished(folder: str) -> bool:
    """Whether the run in a folder came to its end, and was evaluated or was not to be."""
    if os.path.basename(newest_checkpoint(folder)) != f"{FINAL}.pth":
        return False
    try:
        end = read_manifest(folder)["end"]
    except (FileNotFoundError, ValueError):
        return False
    return end is not None and end["reason"] in train.REASONS


def validate_same_run(folder: str, cfg: CfgNode) -> None:
    """Check that an interrupted run in the folder was made with this config.

    Args:
        folder: the output folder, which need not be there.
        cfg: the whole config of this run.

    Raises:
        ValueError: it was not; the settings are named.
    """
    if not newest_checkpoint(folder):
        return
    try:
        before: dict[str, Any] = read_manifest(folder)["facts"]["config"]["values"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    now = make_config_facts(cfg)["values"]
    changed = [
        f"{key} ({before.get(key)!r} there, {now.get(key)!r} now)"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(_FREE)
    ]
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise ValueError(
            f"{folder} holds a run with other settings: {', '.join(changed[:_SHOWN])}{more}; move the folder away to "
            "train anew, or go on in it with --resume"
        )
