"""Check data sets before a run: what tools/check_dataset.py does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.contact_sheet import write_contact_sheet
from maskrcnn_benchmark.apps.options.check_dataset import make_parser as make_parser
from maskrcnn_benchmark.apps.own_classes import build_classes
from maskrcnn_benchmark.config.classes import class_count, class_count_key
from maskrcnn_benchmark.config.custom_data import PATH_KEYS
from maskrcnn_benchmark.data import make_dataset
from maskrcnn_benchmark.data.datasets.coco_check import check_coco
from maskrcnn_benchmark.data.datasets.folder_check import check_folder
from maskrcnn_benchmark.data.datasets.report import DataReport
from maskrcnn_benchmark.data.datasets.sources import find_source
from maskrcnn_benchmark.data.open_dataset import make_dataset_arguments
from maskrcnn_benchmark.utils.plain_yaml import parse_yaml

_NAME = "data"  # of a data set that is given by its paths


def main(args: argparse.Namespace, cfg: CfgNode) -> int:
    """Run the program.

    Args:
        args: parsed options of ``make_parser``.
        cfg: the config tree with its defaults; stays as it is.

    Returns:
        The exit status.
    """
    try:
        cfg, names = build_checked_config(args, cfg)
        reports = [_check(cfg, name, args) for name in names]
        errors = [error for report in reports for error in report.errors]
        if not errors:
            has_masks = any(report.counts["objects with masks"] for report in reports)
            errors = validate_as_a_run(cfg, names, args, has_masks=has_masks)
    except (KeyError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    _say("\nno errors" if not errors else "\nthe data cannot be used before the errors are mended")
    return 1 if errors else 0


def build_checked_config(args: argparse.Namespace, cfg: CfgNode) -> tuple[CfgNode, list[str]]:
    """The config that names the data sets, and which of them are checked, each once.

    Raises:
        ValueError: what was typed names no data set.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if args.config_file is not None:
        cfg.merge_from_file(args.config_file)
        cfg.merge_from_list(args.data)
        names = list(dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)))
        if not names:
            raise ValueError(f"config file {args.config_file} names no data set in DATASETS.TRAIN or DATASETS.TEST")
        return cfg, names
    pairs = [word.partition("=") for word in args.data]
    if pairs and all(separator for _, separator, _ in pairs):
        entry = {key: _value_of(key, text) for key, _, text in pairs}
    elif len(pairs) == 2:
        entry = {key: _value_of(key, text) for key, text in zip(("ann_file", "img_dir"), args.data, strict=True)}
    else:
        raise ValueError("name the data: --config-file FILE, or keys such as img_dir=images mask_dir=masks; see --help")
    cfg.DATASETS.CUSTOM = [{"name": _NAME, **entry}]
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (_NAME,), ()
    return cfg, [_NAME]


def validate_as_a_run(cfg: CfgNode, names: Sequence[str], args: argparse.Namespace, *, has_masks: bool) -> list[str]:
    """Open the data sets as a run does, print what that says of the classes, and draw the sheets.

    Args:
        cfg: the config; changed in place where the data are given by their paths.
        names: of the data sets.
        args: the options.
        has_masks: whether there are masks; data that are given by their paths are opened with them.

    Returns:
        What is wrong.
    """
    if args.config_file is None:
        cfg.MODEL.MASK_ON = has_masks
    try:
        build_classes(cfg, training=bool(cfg.DATASETS.TRAIN))
        for name in names:
            dataset = make_dataset(cfg, name, is_train=args.config_file is not None and name in cfg.DATASETS.TRAIN)
            _say(f"\n{name}: {len(dataset)} images are used; the model has {class_count_key(cfg)} {class_count(cfg)}")
            if args.sheet is not None:
                path = args.sheet if len(names) == 1 else args.sheet.with_stem(f"{args.sheet.stem}_{name}")
                _say(f"{write_contact_sheet(path, dataset)} pictures of {name} are drawn in {path}")
    except (KeyError, OSError, ValueError) as error:
        _show("errors", [str(error)], args.limit)
        return [str(error)]
    return []


def _value_of(key: str, text: str) -> Any:
    """The value of ``key=text``; classes are a file or a list with commas."""
    if key in PATH_KEYS:
        if not Path(text).exists():
            raise FileNotFoundError(f"{key} {text} does not exist")
        return str(Path(text).absolute())
    if key in ("split", "mask_suffix", "format"):
        return text
    if key == "classes":
        return str(Path(text).absolute()) if Path(text).is_file() else text.split(",")
    return parse_yaml(text, key)


def _check(cfg: CfgNode, name: str, args: argparse.Namespace) -> DataReport:
    """Check one data set and print what was found."""
    factory, arguments, _ = make_dataset_arguments(cfg, name)
    progress = partial(tqdm, desc=f"{name}: images", disable=None, leave=False)
    if factory == "COCODataset":
        report = check_coco(arguments["ann_file"], arguments["root"], decode=not args.no_decode, progress=progress)
    else:
        source = find_source(factory, arguments)
        classes = arguments.get("classes") or source.names
        report = check_folder(source, classes=classes, decode=not args.no_decode, progress=progress)
    if args.config_file is not None:
        _say(f"\ndata set {name}: {', '.join(f'{key} {value}' for key, value in arguments.items())}")
    for what, count in report.counts.items():
        _say(f"{count:>9} {what}")
    for line in report.size_lines():
        _say(line)
    if report.objects:
        _say("\nobjects of each category")
        for category, count in report.objects.items():
            _say(f"{count:>9} {category}" + ("" if count else "   (none)"))
    _show("warnings (training leaves these out)", report.warnings, args.limit)
    _show("errors", report.errors, args.limit)
    return report


def _show(title: str, lines: Sequence[str], limit: int) -> None:
    if lines:
        _say(f"\n{len(lines)} {title}")
        for line in lines[:limit]:
            _say(f"  {line}")
        if len(lines) > limit:
            _say(f"  ... and {len(lines) - limit} more (--limit)")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
