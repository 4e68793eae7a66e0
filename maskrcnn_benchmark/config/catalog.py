"""From a data set's name to its files, and from a ``catalog://`` name to an address.

A name is looked up in DATASETS.CUSTOM, then in the user's PATHS_CATALOG file, then in the package's own catalogue.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config import paths_catalog
from maskrcnn_benchmark.config.custom_data import PATH_KEYS, custom_entries, form_of, known_formats
from maskrcnn_benchmark.config.node import ConfigKeyError
from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog, ModelCatalog

__all__ = ["DatasetCatalog", "DatasetEntry", "ModelCatalog", "custom_entries", "resolve_dataset", "resolve_model"]

# Factories whose files are generated on first use, below `root`.
GENERATED = frozenset({"shapes"})
# What lies at the path of a key, for messages; images where it is not named.
_CONTENTS = {
    **dict.fromkeys(("ann_file", "ann_dir", "xml_dir", "json_dir", "txt_dir"), "annotations"),
    "mask_dir": "masks",
    "data_yaml": "data.yaml",
    "list_file": "list of images",
    "mapping_file": "mapping file",
    "classes": "list of classes",
}
# The original's folder for each kind of data; the names of its data sets begin alike.
ORIGINAL_FOLDERS = ("coco", "voc", "cityscapes")
CATALOG_PREFIX = "catalog://"


@dataclass(frozen=True)
class DatasetEntry:
    """A data set that can be opened: ``factory`` is the class in ``data.datasets``, ``args`` its arguments."""

    name: str
    factory: str
    args: dict[str, Any]


def resolve_dataset(cfg: CfgNode, name: str) -> DatasetEntry:
    """Find the data set ``name``.

    The data folder is the environment variable DATA_DIR, else DATASETS.DATA_DIR, else that of a PATHS_CATALOG file. A
    relative path X is looked for at <data folder>/data/X, then at <data folder>/X (X without a leading ``data/``); one
    of DATASETS.CUSTOM also as X seen from the working folder, one of the package's own also in the other program's
    place: the original keeps each kind of data in a folder of its own, coco/, voc/ or cityscapes/, NVIDIA's does not.

    Raises:
        KeyError: the name is in no catalogue. ValueError: its entry says not what it is. FileNotFoundError: its files
        are not there; the message names the places.
    """
    custom = custom_entries(cfg)
    own = _load_catalog(cfg.PATHS_CATALOG)
    own_datasets = getattr(own.DatasetCatalog, "DATASETS", {}) if hasattr(own, "DatasetCatalog") else {}
    entry = custom.get(name) or own_datasets.get(name) or DatasetCatalog.DATASETS.get(name)
    if entry is None:
        known = [*custom, *own_datasets, *DatasetCatalog.DATASETS]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigKeyError(
            f"there is no data set {name!r}; {hint}Add your own by DATASETS.CUSTOM "
            "\"[{'name': ..., 'img_dir': ..., 'ann_file': ...}]\""
        )
    factory, args = describe_entry(name, entry)
    root = _data_dir(cfg, own)
    if factory in GENERATED:
        return DatasetEntry(name, factory, {**args, "root": str(root / _expanded(args["root"]))})
    for key in [key for key in (*PATH_KEYS, "classes") if isinstance(args.get(key), str)]:
        beside = [_expanded(args[key])] if name in custom else []
        others = _other_paths(args[key], name) if entry is DatasetCatalog.DATASETS.get(name) else []
        places = [*beside, *(root / other for other in others)]
        args[key] = _find(args[key], root=root, name=name, key=key, others=places)
    return DatasetEntry(name, factory, args)


def resolve_model(cfg: CfgNode, name: str) -> str:
    """Return the address of the weights ``name`` (``catalog://`` may be left out); KeyError for an unknown one."""
    name = name.removeprefix(CATALOG_PREFIX)
    own = getattr(_load_catalog(cfg.PATHS_CATALOG), "ModelCatalog", None)
    if own is not None and own is not ModelCatalog:
        try:
            return own.get(name)
        except (KeyError, RuntimeError):  # the published catalogue raises RuntimeError for a name it does not know
            pass
    try:
        return ModelCatalog.get(name)
    except KeyError as error:
        raise ConfigKeyError(f"MODEL.WEIGHT {CATALOG_PREFIX}{name}: {error.args[0]}") from None


def describe_entry(name: str, entry: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the class that reads a catalogue entry, and its arguments, by the entry's keys."""
    args = {key: value for key, value in entry.items() if key not in ("factory", "format", "name")}
    form = form_of(entry, f"data set {name}")
    if form is None and "factory" not in entry:
        raise ValueError(
            f"data set {name}: an entry with the keys {', '.join(entry)} says not what it is; the formats are known by "
            f"their keys: {known_formats()}; or give the name of a class as factory"
        )
    factory = form.factory if form is not None else entry["factory"]
    if factory == "COCODataset" and "img_dir" in args:
        args["root"] = args.pop("img_dir")
    return factory, args


def _data_dir(cfg: CfgNode, own: ModuleType) -> Path:
    """Return the folder that relative paths start from."""
    default = DatasetCatalog.DATA_DIR
    configured = cfg.DATASETS.DATA_DIR
    if configured == default:
        configured = getattr(getattr(own, "DatasetCatalog", None), "DATA_DIR", default)
    return _expanded(os.environ.get("DATA_DIR") or configured)


def _expanded(path: str | Path) -> Path:
    """A path with its ``~`` replaced; one of a user whom this machine does not know stays, and is then not found."""
    return Path(os.path.expanduser(path))


def _other_paths(path: str, name: str) -> list[Path]:
    """Where the other program has what is at ``path`` in this one's catalogue, below the data folder."""
    first, *rest = Path(path).parts
    if first in ORIGINAL_FOLDERS:
        return [Path(*rest), Path("data", *rest)]
    return [Path(folder, *rest) for folder in ORIGINAL_FOLDERS if name.startswith(f"{folder}_")]


def _find(path: str, *, root: Path, name: str, key: str, others: list[Path]) -> str:
    """Return the first place at which a path of a catalogue entry exists; ``others`` come last."""
    given = _expanded(path)
    below = Path(*given.parts[1:]) if given.parts[:1] == ("data",) else given
    places = [given] if given.is_absolute() else [root / "data" / below, root / below, *others]
    for place in places:
        if place.exists():
            return str(place)
    what = _CONTENTS.get(key, "images")
    raise FileNotFoundError(
        f"data set {name}: no {what} at {' or '.join(map(str, places))}; set DATASETS.DATA_DIR or the environment "
        f"variable DATA_DIR (now {root}) to the folder that holds them"
    )


@functools.lru_cache(maxsize=8)
def _load_catalog(path: str) -> ModuleType:
    """Run the user's catalogue file; the package's own is not run a second time."""
    file = _expanded(path)
    if not path or (file.exists() and file.resolve() == Path(paths_catalog.__file__).resolve()):
        return paths_catalog
    if not file.is_file():
        raise FileNotFoundError(f"PATHS_CATALOG: file {path} does not exist")
    spec = importlib.util.spec_from_file_location("maskrcnn_benchmark_user_catalog", file)
    if spec is None or spec.loader is None:  # the name does not end in .py
        raise ValueError(f"PATHS_CATALOG: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises
        raise ValueError(f"PATHS_CATALOG: {path} cannot be run: {type(error).__name__}: {error}") from error
    return module
