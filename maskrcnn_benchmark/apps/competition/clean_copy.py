"""What the organisers get: the tracked files, and for a quick check a sample of the data and a short schedule."""

from __future__ import annotations

import os
import shutil
import subprocess
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.competition.test_images import SAMPLE, TestImages, find_file, same_name
from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.data.datasets.coco_json import parse_json
from maskrcnn_benchmark.data.datasets.loose_coco import list_images
from maskrcnn_benchmark.data.datasets.subset import is_validation

# Where git cannot be asked: what programs leave behind, and no one hands in.
_LEFT_BEHIND = {
    ".git", ".venv", "venv", "build", "runs", "results", "outputs", "multirun", "datasets", "data", "__pycache__",
    ".pytest_cache", ".ruff_cache", ".hypothesis", "mlruns", ".neptune",
}  # fmt: skip
_BUILT = (".so", ".pyc", ".pyd")
_TRAIN = DatasetCatalog.get("parking_2022_val")["args"]
_LEAST_VALIDATION = 4


def copy_code(root: Path, target: Path) -> int:
    """Copy the tracked files, as they are now; where git knows nothing, all but what programs leave behind.

    Args:
        root: the repository.
        target: a folder that is not there yet.

    Returns:
        How many files.
    """
    names = _tracked(root)
    if names is None:
        names = _found(root)
    copied = 0
    for name in names:
        if (root / name).is_file():  # one that was deleted is still tracked until that is committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
            copied += 1
    return copied


def _tracked(root: Path) -> list[str] | None:
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [name for name in os.fsdecode(done.stdout).split("\0") if name]


def _found(root: Path) -> list[str]:
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = [each for each in folders if each not in _LEFT_BEHIND]
        names += [str(Path(folder, name).relative_to(root)) for name in files if not name.endswith(_BUILT)]
    return names


def take_sample(data: Path, target: Path, *, num_train: int, num_test: int) -> None:
    """A small folder in the form of the data, whose images are links to theirs.

    Args:
        data: the folder with train/ and test/.
        target: a folder that is not there yet.
        num_train: images to train on; some more are there to evaluate.
        num_test: images to detect on.

    Raises:
        FileNotFoundError, ValueError: the data are not as they should be.
    """
    json_file, listed = Path(_TRAIN["ann_file"]), TestImages.read(data)
    content = parse_json(data / json_file)
    images = _chosen(content.get("images") or [], num_train)
    ids = {image["id"] for image in images}
    sample: dict[str, Any] = {**content, "images": images}
    sample["annotations"] = [each for each in content.get("annotations") or [] if each.get("image_id") in ids]
    _write_json(target / json_file, sample)
    _link(data / _TRAIN["root"], target / _TRAIN["root"], [image["file_name"] for image in images])
    names = listed.names[:num_test]
    rows = [{"id": image_id, "file_name": name} for image_id, name in zip(listed.ids, names, strict=False)]
    _write_json(target / listed.path.relative_to(data), {"images": rows})
    _link(data / "test/images", target / "test/images", names)
    if (submission := find_file(data, SAMPLE)) is not None:
        shutil.copy(submission, target / SAMPLE)


def _chosen(images: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first images, and the first that are kept for evaluation."""
    is_kept = [
        is_validation(unicodedata.normalize("NFC", image["file_name"]), _TRAIN["val_fraction"]) for image in images
    ]
    training = [image for image, kept in zip(images, is_kept, strict=True) if not kept][:count]
    validation = [image for image, kept in zip(images, is_kept, strict=True) if kept]
    return training + validation[: max(count // 10, _LEAST_VALIDATION)]


def _link(source: Path, target: Path, wanted: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    names = set(map(same_name, wanted))
    for name in list_images(source):
        if same_name(name) in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            os.symlink((source / name).resolve(), target / name)


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(content))


def make_short_config(cfg: CfgNode, config_file: str, path: Path, *, iterations: int) -> None:
    """Write a config like the official one, but for the length of its schedule.

    Args:
        cfg: the official config, merged; reads SOLVER.
        config_file: its file.
        path: the new file.
        iterations: of the schedule.
    """
    factor = iterations / cfg.SOLVER.MAX_ITER
    steps = ", ".join(str(round(step * factor)) for step in cfg.SOLVER.STEPS)
    lines = [
        f"_BASE_: {orjson.dumps(os.path.abspath(config_file)).decode()}",
        "SOLVER:",
        f"  MAX_ITER: {iterations}",
        f"  STEPS: [{steps}]",
        f"  WARMUP_ITERS: {min(cfg.SOLVER.WARMUP_ITERS, iterations // 3)}",
        f"  CHECKPOINT_PERIOD: {max(iterations // 2, 1)}",
        "  LOG_PERIOD: 1",
        "  MAX_TIME_FIT_AFTER: 0",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
