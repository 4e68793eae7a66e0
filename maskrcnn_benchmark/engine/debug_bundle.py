"""Debug bundles: what is needed to run a failed iteration again, in plain files.

    OUTPUT_DIR/debug/iteration_0000123/
        report.json     what was not finite, where and when, the images, losses of the last iterations, rate, scaler
        config.yml      the run's config
        batch.pth       images (pixels uint8, or the network's input float32), their sizes, and targets
        model.pth       the weights

`tools/replay_debug.py` runs it again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.data.rebuild import rebuild_batch
from maskrcnn_benchmark.engine.nonfinite import Failure
from maskrcnn_benchmark.structures.targets import Targets

logger = logging.getLogger("maskrcnn_benchmark.trainer")

FORMAT = 1
MOST_BYTES = 1 << 30  # of batch and weights together


@dataclass(frozen=True)
class Faulty:
    """An iteration that failed.

    Args:
        failure: what was not finite.
        noticed_at: the iteration in which the host learned of it.
        weights_are_exact: the model has the weights of that iteration; otherwise later ones.
        seed: of the run; with iteration and process the seed of every generator.
        lr: learning rate when it was noticed.
        scaler: state of the loss scaler then.
        history: (iteration, losses by name) of the last iterations.
        config_text: YAML.
        batch: the prepared batch (ImageList, targets, indices); None: it is made anew from the files.
    """

    failure: Failure
    noticed_at: int
    weights_are_exact: bool
    seed: int
    lr: float
    scaler: Mapping[str, Any]
    history: list[tuple[int, dict[str, float]]]
    config_text: str
    batch: Any = None


def save_bundle(folder: str, faulty: Faulty, model: nn.Module, loader: Any, *, most_bytes: int = MOST_BYTES) -> str:
    """Write a bundle into a new folder below ``folder``.

    Args:
        folder: of all bundles.
        faulty: the iteration.
        model: the network, wrapped or not.
        loader: whose data set knows the images, and which can give a batch again.
        most_bytes: what would go beyond is left out: the weights first, then the batch.

    Returns:
        The path; "" when nothing could be written, which is logged and is no error.
    """
    try:
        path = _make_folder(folder, faulty.failure.iteration)
        batch = _plain_batch(faulty, loader)
        weights = {name: value.detach() for name, value in getattr(model, "module", model).state_dict().items()}
        left_out = []
        for name, content in (("batch.pth", batch), ("model.pth", weights)):
            most_bytes -= _num_bytes(content)
            if not content or most_bytes < 0:
                left_out.append(name)
            else:
                torch.save(_to_host(content), os.path.join(path, name))
        with open(os.path.join(path, "config.yml"), "w", encoding="utf-8") as file:
            file.write(faulty.config_text)
        with open(os.path.join(path, "report.json"), "w", encoding="utf-8") as file:
            json.dump(_report(faulty, loader, left_out), file, indent=1)
    except Exception as error:  # whatever it is, it must not hide the failure, nor keep other processes waiting
        logger.warning("no debug bundle could be written below %s (%s)", folder, error)
        return ""
    return path


def _make_folder(folder: str, iteration: int) -> str:
    """A folder that was not there before: a resumed run may fail again in the same iteration."""
    for number in range(1, 1000):
        path = os.path.join(folder, f"iteration_{iteration:07d}" + (f"_{number}" if number > 1 else ""))
        try:
            os.makedirs(path)
        except FileExistsError:
            continue
        return path
    raise OSError(f"{folder} holds too many bundles of iteration {iteration}; delete some")


def _plain_batch(faulty: Faulty, loader: Any) -> dict[str, Any]:
    """The batch as tensors and lists; empty where it cannot be had."""
    batch = faulty.batch or rebuild_batch(loader, faulty.failure.iteration)
    if batch is None:
        return {}
    images, targets, _ = batch
    if isinstance(targets, list | tuple):
        targets = Targets.from_boxlists(targets)
    plain = {"images": images.tensors, "image_sizes": [list(map(int, size)) for size in images.image_sizes]}
    if isinstance(targets, Targets):
        polygons = targets.polygons
        plain |= {"boxes": targets.boxes, "labels": targets.labels, "keypoints": targets.keypoints}
        for name in ("coords", "ring_offsets", "instance_offsets"):
            plain[name] = getattr(polygons, name) if polygons is not None else None
    return plain


def _report(faulty: Faulty, loader: Any, left_out: list[str]) -> dict[str, Any]:
    failure, dataset = faulty.failure, getattr(loader, "dataset", None)
    known = getattr(dataset, "get_img_info", None)
    files = [str(known(index).get("file_name", "")) for index in failure.indices] if known is not None else []
    return {
        "format": FORMAT,
        "what": failure.what,
        "iteration": failure.iteration,
        "noticed_at_iteration": faulty.noticed_at,
        "weights_are_those_of_the_iteration": faulty.weights_are_exact,
        "process": failure.rank,
        "image_ids": list(failure.image_ids),
        "indices": [int(index) for index in failure.indices],
        "file_names": files,
        "seed": faulty.seed,
        "learning_rate": faulty.lr,
        "scaler": faulty.scaler,
        "losses": [{"iteration": number, **{k: str(v) for k, v in row.items()}} for number, row in faulty.history],
        "left_out": left_out,
    }


def _num_bytes(content: Mapping[str, Any]) -> int:
    return sum(value.nbytes for value in content.values() if isinstance(value, Tensor))


def _to_host(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in content.items()}
