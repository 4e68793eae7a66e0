"""Models of ours as archives for the platform's page "import model".

An archive holds the weights, the config that they were trained with, and ``ymir-info.yaml``, which lists both and says
how good the model is. The platform knows it by its sha1.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import logging
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
import yaml
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.categories import load_categories
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.manifest import read_manifest
from maskrcnn_benchmark.apps.predict import config_of, find_checkpoint
from maskrcnn_benchmark.checkpoint.files import read_weights, write_atomically
from maskrcnn_benchmark.config.classes import class_count
from maskrcnn_benchmark.ymir.package_options import OLD
from maskrcnn_benchmark.ymir.settings import DETECTION, INSTANCE_SEGMENTATION

logger = logging.getLogger("maskrcnn_benchmark.ymir")

INFORMATION = "ymir-info.yaml"
CONFIG_FILE = "config.yaml"
_TRAINING = 1  # the platform's number for the task that a model comes from
_METRICS = ("mAP", "mAR", "maskAP", "boxAP")


@dataclass(frozen=True)
class Model:
    """What goes into an archive.

    Attributes:
        weights_name: the weights' name in the archive.
        weights: the content of the .pth file, {"model": ...}.
        config: the config that the network is built from, as YAML.
        class_names: in the order of the labels 1, 2, ...
        metrics: mAP, and for masks maskAP too; each 0 to 1.
        has_masks: whether it is one for instance segmentation.
        timestamp: seconds since 1970.
        further: other files of the stage.
    """

    weights_name: str
    weights: bytes
    config: str
    class_names: Sequence[str]
    metrics: Mapping[str, float]
    has_masks: bool
    timestamp: int
    further: Sequence[Path] = field(default_factory=tuple)

    @property
    def files(self) -> list[str]:
        """Names of the files, the weights first."""
        return [self.weights_name, CONFIG_FILE, *(path.name for path in self.further)]


def describe(model: Model, *, version: str, stage: str, executor: str, producer: str) -> dict[str, Any]:
    """The content of ymir-info.yaml.

    Args:
        version: of the package; the one before 2.0.0 has no stages, and a single figure.
        stage: name of the one stage.
        executor: image that the model belongs to.
        producer: who made it.
    """
    context = {"executor": executor, "producer": producer, "mAP": model.metrics["mAP"], "type": _TRAINING}
    known = {"executor_config": {"class_names": list(model.class_names)}, "task_context": context}
    if version == OLD:
        return known | {"models": model.files}
    entry = {"stage_name": stage, "files": model.files, "timestamp": model.timestamp, **model.metrics}
    return known | {
        "package_version": version, "object_type": INSTANCE_SEGMENTATION if model.has_masks else DETECTION,
        "stages": {stage: entry}, "best_stage_name": stage,
    }  # fmt: skip


def write_package(path: str | os.PathLike[str], model: Model, information: Mapping[str, Any]) -> str:
    """Write an archive; the same model gives the same bytes.

    Returns:
        Its sha1, by which the platform knows the model.

    Raises:
        OSError: a file cannot be read, or the archive not be written.
        ValueError: two files have one name.
    """
    doubled = sorted({name for name in model.files if model.files.count(name) > 1})
    if doubled or INFORMATION in model.files:
        raise ValueError(f"the archive would hold {(doubled or [INFORMATION])[0]} twice; rename the file that is added")
    contents = {model.weights_name: model.weights, CONFIG_FILE: model.config.encode()}
    contents |= {each.name: each.read_bytes() for each in model.further}
    contents[INFORMATION] = yaml.safe_dump(dict(information), sort_keys=False).encode()
    write_atomically(os.fspath(path), lambda file: _write_archive(file, contents, model.timestamp))
    return hashlib.sha1(Path(path).read_bytes()).hexdigest()


def _write_archive(file: IO[bytes], contents: Mapping[str, bytes], timestamp: int) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), timestamp
            archive.addfile(entry, io.BytesIO(content))


def make_model(
    weights: str, cfg: CfgNode, *, class_names: Sequence[str], metrics: Mapping[str, float], further: Sequence[str] = ()
) -> Model:
    """A checkpoint as a model to pack: without the optimiser's state, which nobody there goes on from.

    Args:
        weights: a .pth file.
        cfg: the config of the network.
        class_names: by label; empty: those of the run's categories.json.
        metrics: figures by the platform's names.
        further: paths of other files to add.

    Raises:
        ValueError: names or figures do not fit the network.
    """
    names = list(class_names)
    if not names:
        names = [category.name for category in load_categories(Path(weights).parent, class_count(cfg), ())]
    if len(names) != class_count(cfg) - 1:
        raise ValueError(f"{len(names)} class names were given, {weights} has {class_count(cfg) - 1} classes")
    has_masks = cfg.MODEL.MASK_ON
    needed = ["mAP", "maskAP"] if has_masks else ["mAP"]
    if missing := [name for name in needed if name not in metrics]:
        raise ValueError(f"the figures of {weights} are not known; give them: --metrics {' '.join(missing)}=0.31")
    data = read_weights(weights)
    content = io.BytesIO()
    torch.save({"model": data.get("model", data)}, content)
    tree = cfg.clone()
    del tree["PATHS_CATALOG"]  # a place on this machine
    return Model(
        weights_name=f"{Path(weights).stem}.pth", weights=content.getvalue(), config=tree.dump(), class_names=names,
        metrics=metrics, has_masks=has_masks, timestamp=int(os.path.getmtime(weights)),
        further=tuple(map(Path, further)),
    )  # fmt: skip


def parse_metrics(words: Sequence[str]) -> dict[str, float]:
    """Figures out of words such as "mAP=0.36".

    Raises:
        ValueError: one is not in this form, or not between 0 and 1.
    """
    found = {}
    for word in words:
        match = re.fullmatch(r"(\w+)=(0?\.\d+|[01](?:\.0*)?)", word)
        if match is None or match[1] not in _METRICS:
            raise ValueError(f"--metrics takes {', '.join(_METRICS)}, each = a number from 0 to 1, got {word!r}")
        found[match[1]] = float(match[2])
    return found


def metrics_of_run(folder: Path) -> dict[str, float]:
    """The figures that a run's manifest ends with, by the platform's names; none where it was not evaluated."""
    try:
        evaluation = (read_manifest(str(folder)).get("end") or {}).get("evaluation", {})
    except (FileNotFoundError, ValueError):
        return {}
    places = {"mAP": ("bbox", "AP50"), "boxAP": ("bbox", "AP"), "maskAP": ("segm", "AP")}
    figures = {name: (evaluation.get(task) or {}).get(figure) for name, (task, figure) in places.items()}
    return {name: float(value) for name, value in figures.items() if value is not None and 0 <= value <= 1}


@user_errors()
def main(args: argparse.Namespace) -> str:
    """Run the program with parsed options of ``make_parser``; returns the id that the platform gives the model."""
    weights = find_checkpoint(args.weights)
    if not weights.endswith((".pth", ".pt")):
        raise ValueError(f"{weights} is no .pth file; train once from it, or save its state dict as one")
    model = make_model(
        weights,
        config_of(weights, args.config_file),
        class_names=[name.strip() for name in args.class_names.split(",") if name.strip()],
        metrics=metrics_of_run(Path(weights).parent) | parse_metrics(args.metrics),
        further=args.add,
    )
    known = describe(
        model, version=args.package_version, stage=args.stage, executor=args.executor, producer=args.producer
    )
    return write_package(args.output, model, known)
