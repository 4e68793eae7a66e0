"""Names of our layers, and the orders in which programs lay out anchors and classes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_RATIOS = 3  # aspect ratios of the anchors in every published model
RETINANET_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # by which our RetinaNet divides its deltas; others divide by 1
OTHERS_EPSILON = 1e-5
# torchvision numbers COCO's 80 categories by their ids, which run to 90.
COCO_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO_ROWS = [0, *(number for number in range(1, 91) if number not in COCO_GAPS)]


@dataclass(frozen=True)
class Layer:
    """A layer of our network: the name of its weights and of the normalisation that follows."""

    weights: str
    norm: str


def stem() -> Layer:
    """The first convolution."""
    return Layer("stem.conv1", "stem.bn1")


def block_layer(stage: int, block: int, part: str) -> Layer:
    """A convolution of a residual block: ``part`` is conv1, conv2, conv3, conv2_offset or shortcut; stages 2 to 5."""
    place = f"layer{stage - 1}.{block}"
    if part == "shortcut":
        return Layer(f"{place}.downsample.0", f"{place}.downsample.1")
    if part == "conv2_offset":
        return Layer(f"{place}.conv2.offset", "")
    return Layer(f"{place}.{part}", f"{place}.bn{part[-1]}")


def layer(name: str, normed: bool) -> Layer:
    """A layer that is a Sequential where a normalisation follows."""
    return Layer(f"{name}.0", f"{name}.1") if normed else Layer(name, "")


def box_conv(number: int, normed: bool) -> Layer:
    """Convolution ``number`` (from 1) of the box head with stacked convolutions, each with its ReLU."""
    index = (number - 1) * (3 if normed else 2)
    return Layer(f"xconvs.{index}", f"xconvs.{index + 1}")


def ratios_slowest(tensor: Tensor, per_anchor: int) -> Tensor:
    """Rows [sizes x ratios x per_anchor, ...] of other programs in our order of anchors, ratios x sizes."""
    sizes, rest = divmod(tensor.shape[0], NUM_RATIOS * per_anchor)
    if rest or sizes < 2:
        return tensor
    shape = (sizes, NUM_RATIOS, per_anchor, *tensor.shape[1:])
    return tensor.reshape(shape).transpose(0, 1).reshape(tensor.shape)


def retinanet_logits(tensor: Tensor, num_anchors: int) -> Tensor:
    """Weight or bias of RetinaNet's class logits, [A x K, ...], in our order of anchors."""
    return ratios_slowest(tensor, tensor.shape[0] // num_anchors)


def retinanet_deltas(tensor: Tensor) -> Tensor:
    """Weight or bias of RetinaNet's deltas, [A x 4, ...], in our order of anchors and in our units."""
    weights = torch.tensor(RETINANET_BOX_WEIGHTS, dtype=tensor.dtype).repeat(tensor.shape[0] // 4)
    return ratios_slowest(tensor, 4) * weights.reshape(-1, *[1] * (tensor.dim() - 1))


def usable_variance(tensor: Tensor) -> Tensor:
    """A variance that our frozen batch norm can divide by.

    It adds no epsilon, as published; others add 1e-5, so that a channel that is always zero does them no harm.
    """
    return torch.where(tensor > 0, tensor, tensor.new_tensor(OTHERS_EPSILON))


def prepend_background(tensor: Tensor, rows: int) -> Tensor:
    """Add zeros for the background, whose outputs nothing reads, before the rows of the classes."""
    return torch.cat([tensor.new_zeros(rows, *tensor.shape[1:]), tensor])


def background_first(tensor: Tensor) -> Tensor:
    """Rows of classes with the background last -> with the background first."""
    return torch.cat([tensor[-1:], tensor[:-1]])


def numbered(pattern: str, text: str) -> int | None:
    """The number that the only group of ``pattern`` finds in the whole text; None where it does not fit."""
    match = re.fullmatch(pattern, text)
    return int(match.group(1)) if match else None
