"""Data sets that ClearML keeps, on this machine's disk."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.apps.errors import describe
from maskrcnn_benchmark.checkpoint.files import write_atomically

logger = logging.getLogger("maskrcnn_benchmark")

RECORD_SUFFIX = ".clearml.json"
"""Of the file beside a folder that says which data set was unpacked there, and whether to its end."""


def make_data_folder(dataset_id: str, dataset_path: str, *, overwrite: bool = False) -> str:
    """The folder that holds the data, fetched where that is needed.

    Args:
        dataset_id: of ClearML. "": what lies in ``dataset_path`` is taken as it is.
        dataset_path: where to unpack it; a filled folder is taken for the data set unless the file beside it says
            otherwise. "": ClearML's cache, which is only read.
        overwrite: fetch it in any case.

    Returns:
        An absolute path; "" where neither is given.

    Raises:
        ValueError: the folder holds another data set, or ClearML cannot give this one.
        FileNotFoundError: there is no folder, and nothing that could fill it.
        ImportError: the package clearml is not installed.
    """
    if not dataset_id:
        if dataset_path and not os.path.isdir(dataset_path):
            raise FileNotFoundError(
                f"dataset_path {dataset_path!r} does not exist; put the data there, or give a dataset_id to fetch them"
            )
        return os.path.abspath(dataset_path) if dataset_path else ""
    if not dataset_path:
        return os.path.abspath(_fetch(dataset_id, None))
    folder = Path(dataset_path).absolute()
    record = folder.with_name(folder.name + RECORD_SUFFIX)
    found = _read(record)
    is_filled = folder.is_dir() and any(folder.iterdir())
    if is_filled and not overwrite and found.get("complete", True):
        if found.get("id", dataset_id) != dataset_id:
            raise ValueError(
                f"dataset_path {dataset_path!r} holds the data set {found['id']}, not {dataset_id}; "
                "choose another folder, or replace what is there: overwrite=True"
            )
        logger.info("%s is filled: the data set %s is not fetched", folder, dataset_id)
        return str(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _write(record, dataset_id, complete=False)
    _fetch(dataset_id, str(folder), overwrite=is_filled)
    _write(record, dataset_id, complete=True)
    return str(folder)


def _fetch(dataset_id: str, folder: str | None, *, overwrite: bool = False) -> str:
    """The data set in a folder, or in ClearML's cache; returns where."""
    try:
        from clearml import Dataset
    except ImportError as error:
        raise ImportError(
            f"dataset_id {dataset_id} needs the package clearml ({error}); install it with "
            "pip install 'maskrcnn_benchmark[clearml]', or give a filled dataset_path"
        ) from error
    logger.info("Fetching the data set %s", dataset_id)
    try:
        dataset = Dataset.get(dataset_id=dataset_id)
        if folder is None:
            path = dataset.get_local_copy()
        else:
            path = dataset.get_mutable_local_copy(folder, **({"overwrite": True} if overwrite else {}))
    except Exception as error:  # the SDK has its own for nearly everything
        raise ValueError(f"ClearML cannot give the data set {dataset_id} ({describe(error)})") from error
    if not path:
        raise ValueError(f"ClearML cannot give the data set {dataset_id}: {folder} could not be filled")
    return str(path)


def _read(record: Path) -> dict[str, Any]:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(record: Path, dataset_id: str, *, complete: bool) -> None:
    text = json.dumps({"id": dataset_id, "complete": complete}) + "\n"
    write_atomically(str(record), lambda file: file.write(text.encode()))
