"""Which weights a job begins with, and the config that belongs to them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from yacs.config import CfgNode

from maskrcnn_benchmark.apps.predict import config_of
from maskrcnn_benchmark.config.catalog import CATALOG_PREFIX, resolve_model
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.failures import failing_as
from maskrcnn_benchmark.ymir.network_config import find_config_file
from maskrcnn_benchmark.ymir.settings import JobSettings

logger = logging.getLogger("maskrcnn_benchmark.ymir")

CONFIG_NAME = "config.yaml"
FOLDER_VARIABLE = "YMIR_WEIGHTS_DIR"
FOLDER = "/weights"
"""Weights that were put into the image when it was built."""
_SUFFIXES = (".pth", ".pt", ".pkl")
_BEST = "best_"


@dataclass(frozen=True)
class ChosenWeights:
    """A file of weights.

    Args:
        path: of the weights.
        config_file: beside it; None where there is none.
    """

    path: str
    config_file: str | None


def choose_weights(settings: JobSettings, key: str, models_dir: str) -> ChosenWeights | None:
    """The weights among the files that the platform names: one whose name begins with ``best_``, else the newest.

    Args:
        settings: of the job.
        key: pretrained_model_params or model_params_path.
        models_dir: at which names begin that are no absolute paths.

    Returns:
        None where the key is missing or empty.

    Raises:
        JobError: it names files, but no weights among them that exist.
    """
    names = settings.names(key)
    if not names:
        return None
    paths = [os.path.join(models_dir, name) for name in names]
    found = [path for path in paths if path.lower().endswith(_SUFFIXES) and os.path.isfile(path)]
    if not found:
        raise JobError(
            ReturnCode.WEIGHTS,
            f"{key} names {', '.join(names)}, but none of these is a file of weights ({', '.join(_SUFFIXES)}) that "
            "exists; choose a model that this executor has trained",
        )
    best = [path for path in found if os.path.basename(path).startswith(_BEST)]
    path = max(best or found, key=lambda path: (os.stat(path).st_mtime, path))
    places = [str(Path(path).with_name(CONFIG_NAME)), *(p for p in paths if os.path.basename(p) == CONFIG_NAME)]
    return ChosenWeights(path, next(filter(os.path.isfile, places), None))


def make_class_names(chosen: ChosenWeights) -> Sequence[str]:
    """The classes in the config that was kept beside weights, or in them; () where it names none.

    Raises:
        JobError: there is no config, or it cannot be read.
    """
    with failing_as(ReturnCode.WEIGHTS):
        return config_of(chosen.path, chosen.config_file).DATASETS.CLASSES


def make_local_weights(settings: JobSettings, cfg: CfgNode, root: str) -> str:
    """Weights for a training that was given none; nothing is fetched from elsewhere unless allow_download says so.

    These are, in this order: a file in the image named like config_file; one named like its MODEL.WEIGHT; that file
    itself, where it is here or may be fetched.

    Args:
        settings: of the job.
        cfg: the defaults; the config file is merged into a copy.
        root: folder of the code.

    Returns:
        A path, an address, or "" for random weights.
    """
    config_file = find_config_file(settings, root)
    cfg = cfg.clone()
    cfg.merge_from_file(config_file)
    published = cfg.MODEL.WEIGHT
    place = resolve_model(cfg, published) if published.startswith(CATALOG_PREFIX) else published
    is_remote = place.startswith(("http://", "https://"))
    wanted = [Path(config_file).stem + suffix for suffix in _SUFFIXES]
    wanted += [os.path.basename(urlsplit(place).path if is_remote else place)] if place else []
    folder = os.environ.get(FOLDER_VARIABLE, FOLDER)
    found = find_files(folder, wanted)
    if found:
        return found
    if published and (settings.flag("allow_download") if is_remote else os.path.isfile(place)):
        return published
    if published:
        logger.warning(
            "There are no weights to begin with: %s has none of %s, and allow_download is false. Training begins with "
            "random weights, which needs many more iterations; choose a model to finetune, or put weights into %s",
            folder,
            ", ".join(wanted),
            folder,
        )
    return ""


def find_files(folder: str, names: Sequence[str]) -> str:
    """The first of these names that lies in a folder or below it; "" for none."""
    present = {path.name: str(path) for path in sorted(Path(folder).rglob("*"), reverse=True) if path.is_file()}
    return next((present[name] for name in names if name in present), "")
