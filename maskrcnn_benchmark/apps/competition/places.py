"""Where the competition's programs read and write, from whatever folder they are started."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from yacs.config import CfgNode

from maskrcnn_benchmark.apps.start import build_config

DATA_ROOT = "DATA_ROOT"


def use_data_root() -> None:
    """Let DATA_ROOT, where it is set, say where the data are.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    root = os.environ.get(DATA_ROOT)
    if not root:
        return
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{DATA_ROOT} {root!r} does not exist; it names the folder with train/ and test/")
    os.environ["DATA_DIR"] = os.path.abspath(root)


def make_data_folder(cfg: CfgNode) -> Path:
    """The folder of the data.

    Args:
        cfg: reads DATASETS.DATA_DIR, before which the environment goes.
    """
    return Path(os.environ.get("DATA_DIR") or cfg.DATASETS.DATA_DIR)


def make_train_folder(args: argparse.Namespace, cfg: CfgNode) -> str:
    """The output folder of training: OUTPUT_DIR, in the repository unless it was typed after the command.

    Args:
        args: options of train.py or predict.py.
        cfg: the defaults; stays as it is.
    """
    folder = build_config(args, cfg).OUTPUT_DIR
    return folder if "OUTPUT_DIR" in args.opts[::2] else str(args.root / folder)


def make_weight_file(args: argparse.Namespace, cfg: CfgNode) -> str:
    """MODEL.WEIGHT; a relative path of the config that is not there from here is one of the repository.

    Args:
        args, cfg: as for `make_train_folder`.
    """
    weight = build_config(args, cfg).MODEL.WEIGHT
    beside = args.root / weight
    return str(beside) if weight and not os.path.exists(weight) and beside.is_file() else weight
