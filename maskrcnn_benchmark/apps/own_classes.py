"""The classes of a run on data of one's own: read from the data, and the model made to follow."""

from __future__ import annotations

import logging
from pathlib import Path

from yacs.config import CfgNode

from maskrcnn_benchmark.apps.categories import FILE_NAME, load_categories
from maskrcnn_benchmark.config.catalog import custom_entries
from maskrcnn_benchmark.config.classes import class_count, class_count_key, only_proposes, set_class_count
from maskrcnn_benchmark.data import datasets as dataset_classes
from maskrcnn_benchmark.data.open_dataset import make_dataset_arguments, make_opened_dataset

logger = logging.getLogger("maskrcnn_benchmark")


def build_classes(cfg: CfgNode, *, training: bool) -> None:
    """Write the names of the classes to DATASETS.CLASSES, and their number to the key of the model.

    The names are, in this order: those of DATASETS.CLASSES; those of the run in OUTPUT_DIR that is gone on with, or
    tested; those of the training data in DATASETS.CUSTOM; when these are not here to test a model, those of its test
    data. Published data sets are left alone, and so is a model that only proposes.

    Args:
        cfg: the merged config; changed in place.
        training: whether the model is trained.

    Raises:
        FileNotFoundError: when the data to train on are not there.
        ValueError: when they are faulty, or a number of classes was set that is not theirs.
    """
    custom = custom_entries(cfg)
    trained, tested = ([name for name in names if name in custom] for names in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST))
    if not (trained or tested) or only_proposes(cfg):
        return
    names = list(cfg.DATASETS.CLASSES) or _names_of_run(cfg.OUTPUT_DIR)
    if not names and (trained or not training):
        try:
            names = _names_in_data(cfg, trained)
        except FileNotFoundError:
            if training:
                raise
        names = names or _names_in_data(cfg, tested)
    if not names:
        return
    _follow(cfg, len(names) + 1, ", ".join(trained or tested))
    cfg.DATASETS.CLASSES = tuple(names)


def _names_of_run(folder: str) -> list[str]:
    """The names that were saved beside the checkpoints of a folder; none where there are no checkpoints."""
    if not folder or not all(Path(folder, name).is_file() for name in ("last_checkpoint", FILE_NAME)):
        return []
    return [category.name for category in load_categories(folder)]


def _names_in_data(cfg: CfgNode, datasets: list[str]) -> list[str]:
    """The classes that data sets list; where none of them lists any, the names of all their objects, sorted."""
    listed: list[tuple[str, ...]] = []
    named: set[str] = set()
    for name in datasets:
        factory, args, _ = make_dataset_arguments(cfg, name)
        if factory not in dataset_classes.__all__:  # of a class of the user's own only the opened data set knows
            continue
        from_objects = getattr(getattr(dataset_classes, factory), "names_from_objects", False)
        categories = make_opened_dataset(cfg, name, is_train=False).categories
        if from_objects and "classes" not in args:
            named.update(categories)
        else:
            listed.append(categories)
    return list(listed[0]) if listed else sorted(named)


def _follow(cfg: CfgNode, needed: int, data: str) -> None:
    """Give the model as many classes as the data have, background included."""
    key, given = class_count_key(cfg), class_count(cfg)
    if given == needed:
        return
    source = cfg.source_of(key) if hasattr(cfg, "source_of") else None
    if source is not None:
        raise ValueError(
            f"{key} is {given}, as {source} says, but the data of {data} have {needed - 1} classes, {needed} with the "
            f"background; set {key} {needed}, or leave it out: it then follows the data"
        )
    set_class_count(cfg, needed)
    logger.info("%s follows the data: %d, the classes of %s and the background", key, needed, data)
