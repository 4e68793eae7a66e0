"""YMIR's store of models: archives of what a training's result.yaml lists, unpacked into /in/models of a task."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

INFORMATION = "ymir-info.yaml"


@dataclass(frozen=True)
class StoredModel:
    """An archive in the store; its name is its sha1."""

    path: Path

    @property
    def information(self) -> dict[str, Any]:
        """What ymir-info.yaml says."""
        with tarfile.open(self.path) as archive:
            return yaml.safe_load(archive.extractfile(INFORMATION))

    def files(self) -> list[str]:
        """Of the best stage: ``<stage>/<file>``, or names alone where there are no stages."""
        known = self.information
        if "stages" not in known:
            return list(known["models"])
        best = known["best_stage_name"]
        return [f"{best}/{Path(name).name}" for name in known["stages"][best]["files"]]

    def unpack(self, models: Path, has_stages: bool) -> list[str]:
        """Puts the best stage's files below ``models``, in the stage's folder or flat; returns their relative paths."""
        placed = []
        with tarfile.open(self.path) as archive:
            members = {member.name.removeprefix("./") for member in archive.getmembers()}
            for name in self.files():
                inside = name if name in members else Path(name).name
                place = name if has_stages else Path(name).name
                (models / place).parent.mkdir(parents=True, exist_ok=True)
                (models / place).write_bytes(archive.extractfile(inside).read())
                placed.append(place)
        return placed


def import_package(path: Path, store: Path) -> StoredModel:
    """What "import model" does with an archive from outside: checks its description and takes it in.

    Raises:
        ValueError: a field is missing, or a file that it lists is.
    """
    with tarfile.open(path) as archive:
        members = {member.name.removeprefix("./") for member in archive.getmembers() if member.isfile()}
        known = yaml.safe_load(archive.extractfile(INFORMATION))
    version = str(known.get("package_version", "1.1.0"))
    if not known.get("executor_config", {}).get("class_names"):
        raise ValueError("executor_config.class_names is missing")
    if int(version.split(".")[0]) < 2:
        if not isinstance(known.get("task_context", {}).get("mAP"), float):
            raise ValueError("task_context.mAP is missing")
        listed = [[name] for name in known["models"]]
    else:
        if known["best_stage_name"] not in known["stages"] or known.get("object_type") not in (2, 3, 4):
            raise ValueError("best_stage_name or object_type is missing")
        for name, stage in known["stages"].items():
            if stage["stage_name"] != name or not isinstance(stage["timestamp"], int):
                raise ValueError(f"stage {name} is not described")
        listed = [[file, f"{name}/{file}"] for name, stage in known["stages"].items() for file in stage["files"]]
    missing = [names[0] for names in listed if not members & set(names)]
    if missing:
        raise ValueError(f"the archive lacks {missing}")
    return _take(path.read_bytes(), store)


def save_result(models: Path, result: dict[str, Any], store: Path, class_names: list[str], kind: int) -> StoredModel:
    """Packs what result.yaml lists, from ``models/<stage>/<file>`` or ``models/<file>``: nothing else is kept.

    Raises:
        FileNotFoundError: a file that is listed is not there.
    """
    store.mkdir(parents=True, exist_ok=True)
    known = {"executor_config": {"class_names": class_names}, "task_context": {"type": 1}}
    packed: list[tuple[Path, str]] = []
    if "model_stages" in result:
        known |= {
            "package_version": "2.0.0", "object_type": kind,
            "stages": result["model_stages"], "best_stage_name": result["best_stage_name"],
        }  # fmt: skip
        for name, stage in result["model_stages"].items():
            packed += [(_place(models, name, file), f"{name}/{file}") for file in stage["files"]]
    else:
        known |= {"models": result["model"]}
        known["task_context"]["mAP"] = result["map"]
        packed += [(models / file, file) for file in result["model"]]
    draft = store / "draft.tar.gz"
    description = store / INFORMATION
    description.write_text(yaml.safe_dump(known), encoding="utf-8")
    with tarfile.open(draft, "w:gz") as archive:
        archive.add(description, INFORMATION)
        for path, name in packed:
            archive.add(path, name)
    stored = _take(draft.read_bytes(), store)
    draft.unlink()
    description.unlink()
    return stored


def _place(models: Path, stage: str, file: str) -> Path:
    within = models / stage / file
    return within if within.exists() else models / file


def _take(content: bytes, store: Path) -> StoredModel:
    store.mkdir(parents=True, exist_ok=True)
    path = store / hashlib.sha1(content).hexdigest()
    path.write_bytes(content)
    return StoredModel(path)
