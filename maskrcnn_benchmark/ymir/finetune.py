"""Weights of a model with other classes as the start of a training. Letters: K classes, C channels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.files import save_atomically
from maskrcnn_benchmark.checkpoint.formats import read_any
from maskrcnn_benchmark.checkpoint.weights import fill_from_weights, shorten
from maskrcnn_benchmark.engine.seeding import seed_step
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.utils.model_serialization import match_by_suffix
from maskrcnn_benchmark.ymir.annotations import class_name_key

logger = logging.getLogger("maskrcnn_benchmark.ymir")

# Layers whose rows belong to classes, the background first, and how many rows each class has.
_ROWS = {"box.predictor.cls_score.": 1, "box.predictor.bbox_pred.": 4, "mask.predictor.mask_fcn_logits.": 1}


def build_start_weights(
    cfg: CfgNode, source: str, path: str, *, old_names: Sequence[str], new_names: Sequence[str]
) -> None:
    """Write the weights that a training begins with: all that fits, class by class where the names are known.

    Args:
        cfg: of the training.
        source: weights of another model, a local file.
        path: for the result.
        old_names: classes of ``source``; () where they are not known, and layers of another number of classes then
            begin anew.
        new_names: classes of the training.

    Raises:
        OSError, ValueError: the file cannot be read, or is one of another network.
    """
    seed_step(cfg.SEED, 0, 0)  # new rows begin as those of a training from the start
    model = build_detection_model(cfg)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = read_any(source, fresh)
    report = fill_from_weights(model, weights.state)
    wrong = report.fault or shorten(report.mismatched)
    if wrong or not report.loaded:
        raise ValueError(
            f"{source} does not fit the network of config_file: {wrong or 'none of its names is in the network'}; "
            "choose the config_file that it was trained with"
        )
    logger.info("Weights from %s: %s", source, report.summary())
    state = model.state_dict()
    old_keys, new_keys = ([class_name_key(name) for name in names] for names in (old_names, new_names))
    if old_keys and old_keys != new_keys:
        for name, found in match_by_suffix(state, weights.state).items():
            rows = remap_rows(name, weights.state[found], fresh[name], old_keys, new_keys)
            if rows is not None:
                state[name] = rows
        logger.info(
            "Finetuning: the layers of the classes are taken over class by class; known are %s, new are %s",
            ", ".join(name for name in new_keys if name in old_keys) or "none",
            ", ".join(name for name in new_keys if name not in old_keys) or "none",
        )
    save_atomically({"model": state}, path)


def remap_rows(
    name: str, old: Tensor, fresh: Tensor, old_names: Sequence[str], new_names: Sequence[str]
) -> Tensor | None:
    """The rows of a class layer, each from the row of its class's name.

    Args:
        name: of the tensor.
        old: float32 [rows * (K_old + 1), ...].
        fresh: float32 [rows * (K_new + 1), ...], for classes that ``old`` does not have.
        old_names, new_names: of the classes.

    Returns:
        As ``fresh``; None where the tensor has no such rows, as that of a box head that does not tell classes apart.
    """
    count = next((rows for layer, rows in _ROWS.items() if layer in name), 0)
    sizes = len(old_names) + 1, len(new_names) + 1
    if not count or (old.shape[0], fresh.shape[0]) != (count * sizes[0], count * sizes[1]):
        return None
    places: Mapping[str, int] = {each: place for place, each in enumerate(old_names, start=1)}
    old, result = old.reshape(sizes[0], count, *old.shape[1:]), fresh.clone().reshape(sizes[1], count, *fresh.shape[1:])
    result[0] = old[0]
    for place, each in enumerate(new_names, start=1):
        if each in places:
            result[place] = old[places[each]]
    return torch.reshape(result, fresh.shape)
