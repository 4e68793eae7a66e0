"""torchvision's ResNets and ResNeXts, and its R-CNNs with a feature pyramid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from maskrcnn_benchmark.checkpoint.convert.layers import COCO_ROWS, usable_variance

NUM_COCO_IDS = 91  # classes of torchvision's models for COCO: its ids 0 to 90
_DETECTOR_MARKS = ("backbone.fpn.inner_blocks.", "roi_heads.box_head.", "backbone.body.conv1.weight")
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?:backbone\.body\.)?(conv1|bn1)\.(\w+)", r"stem.\1.\2"),
        (r"(?:backbone\.body\.)?(layer[1-4]\..+)", r"\1"),
        (r"fc\.(\w+)", r"fc1000.\1"),  # ImageNet's classifier
        (r"rpn\.head\.conv(?:\.0\.0)?\.(\w+)", r"rpn.head.conv.\1"),
        (r"rpn\.head\.(cls_logits|bbox_pred)\.(\w+)", r"rpn.head.\1.\2"),
        (r"roi_heads\.box_head\.(fc[67])\.(\w+)", r"feature_extractor.\1.\2"),
        (r"roi_heads\.mask_head\.(mask_fcn\d)\.(\w+)", r"feature_extractor.\1.\2"),
        (r"roi_heads\.(?:box|mask|keypoint)_predictor\.(\w+\.\w+)", r"predictor.\1"),
    )
)
# Layers counted from 0 there and from 1 here; before torchvision 0.13 some names lacked the inner .0.
_COUNTED: tuple[tuple[re.Pattern[str], str, int], ...] = (
    (re.compile(r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?\.(\w+)"), "fpn.fpn_inner", 1),
    (re.compile(r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?\.(\w+)"), "fpn.fpn_layer", 1),
    (re.compile(r"roi_heads\.mask_head\.(\d)\.0\.(\w+)"), "feature_extractor.mask_fcn", 1),
    (re.compile(r"roi_heads\.keypoint_head\.(\d+)\.(\w+)"), "feature_extractor.conv_fcn", 2),  # each with its ReLU
)
_CLASS_ROWS = {"predictor.cls_score": 1, "predictor.bbox_pred": 4, "predictor.mask_fcn_logits": 1}


def is_torchvision(names: Iterable[str]) -> bool:
    """Whether these are names of a torchvision ResNet or R-CNN; our networks keep the first layer in a stem."""
    known = set(names)
    resnet = {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight"} <= known
    return resnet or any(name.startswith(mark) for name in known for mark in _DETECTOR_MARKS)


def from_torchvision(state: Mapping[str, Tensor], *, num_classes: int | None) -> dict[str, Tensor]:
    """Tensors of a torchvision model as tensors of ours.

    Args:
        state: the file's names -> tensor.
        num_classes: classes of our model with the background, None where it has no such layer. For 81, a layer for the
            91 ids of COCO gives the rows of its 80 categories; otherwise classes stay as they are.

    Returns:
        Our names (suffixes of them) -> tensor. A name of no known layer stays, so that it can be reported.
    """
    converted = {
        _own_name(name): usable_variance(tensor) if name.endswith("running_var") else tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    if num_classes == len(COCO_ROWS):
        for name, tensor in converted.items():
            per_class = _CLASS_ROWS.get(name.rpartition(".")[0])
            if per_class and tensor.shape[0] == NUM_COCO_IDS * per_class:
                rows = tensor.reshape(NUM_COCO_IDS, per_class, *tensor.shape[1:])[COCO_ROWS]
                converted[name] = rows.reshape(-1, *tensor.shape[1:])
    return converted


def _own_name(name: str) -> str:
    for pattern, replacement in _RULES:
        if pattern.fullmatch(name):
            return pattern.sub(replacement, name)
    for pattern, own, step in _COUNTED:
        if match := pattern.fullmatch(name):
            return f"{own}{int(match.group(1)) // step + 1}.{match.group(2)}"
    return name
