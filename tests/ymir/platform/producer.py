"""Makes the folder /in of a task, as each generation of YMIR does."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.ymir.platform import annotations
from tests.ymir.platform.annotations import write
from tests.ymir.platform.photos import CLASSES, Photo
from tests.ymir.platform.storage import StoredModel


@dataclass(frozen=True)
class Generation:
    """What a release of YMIR does in its own way.

    Attributes:
        protocol: ``protocol_version`` of env.yaml; None: YMIR 1.1.0, which wrote none.
        export_format: what is exported when the user asks for nothing.
    """

    name: str
    protocol: str | None
    export_format: str

    @property
    def has_stages(self) -> bool:
        """Whether models lie in folders named by their stage, and results list stages."""
        return self.protocol is not None


FIRST = Generation("ymir1.1", None, "ark:raw")
MIDDLE = Generation("ymir1.3", "1.0.0", "ark:raw")
SECOND = Generation("ymir2", "1.1.0", "voc:raw")


@dataclass
class Order:
    """What a user asks for in YMIR's pages.

    Attributes:
        tasks: "training", or "mining" and "infer", one or both.
        settings: the image's template with the user's edits; reserved keys are added to it.
        model: what a training starts from, or what mines and infers.
        object_type: 2 for boxes, 4 for instance masks; None: a YMIR that does not know it.
        linked_assets: /in/assets is a link to the platform's store.
    """

    tasks: Sequence[str]
    generation: Generation = SECOND
    train: Sequence[Photo] = ()
    val: Sequence[Photo] = ()
    candidates: Sequence[Photo] = ()
    class_names: Sequence[str] = CLASSES
    settings: dict[str, Any] = field(default_factory=dict)
    export_format: str = ""
    model: StoredModel | None = None
    object_type: int | None = None
    gpu_count: Any = 0
    linked_assets: bool = False


@dataclass
class Job:
    """One task: its folders and what the platform remembers about it."""

    folder: Path
    task_id: str
    order: Order

    @property
    def source(self) -> Path:
        """/in"""
        return self.folder / "in"

    @property
    def target(self) -> Path:
        """/out"""
        return self.folder / "out"

    def path_of(self, photo: Photo, kind: str = "assets", suffix: str | None = None) -> Path:
        """Where a file of a photo lies: below the last two letters of its hash."""
        name = photo.digest
        ending = asset_suffix(photo) if suffix is None else suffix
        return self.source / kind / name[-2:] / f"{name}{ending}"

    def candidate_paths(self) -> list[str]:
        return [str(self.path_of(photo)) for photo in self.order.candidates]


def asset_suffix(photo: Photo) -> str:
    """Some of YMIR's files have no ending; which ones is a matter of their hash."""
    return "" if photo.digest[0] in "048c" else photo.suffix


_numbers = itertools.count()


def new_task_id() -> str:
    """A t and 29 characters, the last ten the time in seconds."""
    return f"t00000050{next(_numbers):05d}{os.getpid() % 65536:06x}{int(time.time())}"


def produce(folder: Path, order: Order) -> Job:
    """All files of a task that has not started; the platform has said that it is pending."""
    job = Job(folder, new_task_id(), order)
    for place in (job.source / "annotations", job.source / "models", job.target / "models", job.target / "tensorboard"):
        place.mkdir(parents=True)
    _write_assets(job)
    if "training" in order.tasks:
        _write_annotations(job)
        _write_index(job.source / "train-index.tsv", job, order.train)
        _write_index(job.source / "val-index.tsv", job, order.val)
    else:
        write(job.source / "candidate-index.tsv", "\n".join(job.candidate_paths()) + "\n")
    _write_what_is_to_be_ignored(job)
    models = order.model.unpack(job.source / "models", order.generation.has_stages) if order.model else []
    write(job.source / "config.yaml", yaml.safe_dump(_config(job, models)))
    write(job.source / "env.yaml", yaml.safe_dump(_environment(job)))
    write(job.target / "monitor.txt", f"{job.task_id}\t{time.time():.6f}\t0.00\t1\n")
    return job


def _write_assets(job: Job) -> None:
    assets = job.source / "assets"
    if job.order.linked_assets:
        elsewhere = job.folder / "storage" / "assets"
        elsewhere.mkdir(parents=True)
        assets.symlink_to(elsewhere)
    else:
        assets.mkdir()
    for photo in {each.digest: each for each in (*job.order.train, *job.order.val, *job.order.candidates)}.values():
        path = job.path_of(photo)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photo.content)


def _format_of(order: Order) -> str:
    """The annotation part of what is exported, by its short name."""
    name = (order.export_format or order.generation.export_format).partition(":")[0]
    return {"det-ark": "ark", "det-voc": "voc", "seg-coco": "coco"}.get(name, name)


def _annotation_path(job: Job, photo: Photo) -> Path:
    kind = _format_of(job.order)
    if kind == "coco":
        return job.source / "annotations" / "coco-annotations.json"
    return job.path_of(photo, "annotations", {"ark": ".txt", "voc": ".xml"}[kind])


def _write_annotations(job: Job) -> None:
    order, kind = job.order, _format_of(job.order)
    photos = [*order.train, *order.val]
    if kind == "coco":
        text = annotations.coco(photos, [job.path_of(each).name for each in photos], order.class_names)
        write(_annotation_path(job, photos[0]), text)
        return
    for photo in photos:
        if kind == "ark":
            text = annotations.ark(photo, order.class_names, old=not order.generation.has_stages)
        else:
            text = annotations.voc(photo, order.class_names, str(job.path_of(photo)))
        write(_annotation_path(job, photo), text)


def _write_index(path: Path, job: Job, photos: Sequence[Photo]) -> None:
    """Image, TAB, annotation; with a blank line in it, and without a newline at the end."""
    lines = [f"{job.path_of(photo)}\t{_annotation_path(job, photo)}" for photo in photos]
    write(path, "\n".join([*lines[:1], "", *lines[1:]]))


def _write_what_is_to_be_ignored(job: Job) -> None:
    for name in ("idx-assets.tsv", "idx-gt.tsv", "idx-pred.tsv", "pred-train-index.tsv", "test-index.tsv"):
        write(job.source / name, "/in/assets/00/nothing\t/in/annotations/00/nothing.txt\n")
    write(job.source / "predictions" / "00" / "nothing.txt", "no annotation\n")


def _config(job: Job, models: list[str]) -> dict[str, Any]:
    """The user's settings under the platform's own keys; the key of the model is absent when none was chosen."""
    order = job.order
    is_training, new = "training" in order.tasks, order.generation.has_stages
    gpus = int(order.gpu_count)
    config = {"shm_size": f"{16 * max(gpus, 1)}G", **order.settings}
    config |= {
        "task_id": job.task_id, "class_names": list(order.class_names), "gpu_count": order.gpu_count,
        "gpu_id": ",".join(map(str, range(gpus))),
    }  # fmt: skip
    if is_training and order.export_format:
        config["export_format"] = order.export_format
    if order.object_type is not None:
        config["object_type"] = order.object_type
    if new:
        config |= {"run_mining": "mining" in order.tasks, "run_infer": "infer" in order.tasks}
    if models:
        names = [str(job.source / "models" / each) for each in models] if new else models
        config["pretrained_model_params" if is_training else "model_params_path"] = names
    return config


def _environment(job: Job) -> dict[str, Any]:
    source, target, tasks = job.source, job.target, job.order.tasks
    is_training, protocol = "training" in tasks, job.order.generation.protocol
    environment = {
        "task_id": job.task_id,
        "run_training": is_training, "run_mining": "mining" in tasks, "run_infer": "infer" in tasks,
        "input": {
            "root_dir": str(source), "assets_dir": str(source / "assets"),
            "annotations_dir": str(source / "annotations"), "models_dir": str(source / "models"),
            "training_index_file": str(source / "train-index.tsv") if is_training else "",
            "val_index_file": str(source / "val-index.tsv") if is_training else "",
            "candidate_index_file": "" if is_training else str(source / "candidate-index.tsv"),
            "config_file": str(source / "config.yaml"),
        },
        "output": {
            "root_dir": str(target), "models_dir": str(target / "models"),
            "tensorboard_dir": str(target / "tensorboard"),
            "training_result_file": str(target / "models" / "result.yaml"),
            "mining_result_file": str(target / "result.tsv"),
            "infer_result_file": str(target / "infer-result.json"), "monitor_file": str(target / "monitor.txt"),
        },
    }  # fmt: skip
    if protocol is not None:
        environment["protocol_version"] = protocol
        environment["output"]["executor_log_file"] = str(target / "ymir-executor-out.log")
    if protocol == SECOND.protocol:
        environment["manifest_file"] = "/img-man/manifest.yaml"
    return environment
