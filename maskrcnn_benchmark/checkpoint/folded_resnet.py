"""ImageNet ResNets whose batch norm is folded into weight and bias, one .npy file a tensor."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# ImageNet statistics of the RGB channels in 0..1, with which such networks were trained
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def read_folded_resnet(folder: str) -> tuple[dict[str, Tensor], list[str]]:
    """Read a folder of torchvision-named tensors (layer1.0.conv1.weight.npy, ...bias.npy) as weights of our body.

    A convolution's bias becomes the bias of the frozen batch norm that follows it, whose other buffers are neutral. The
    first convolution is rewritten for images in BGR 0..255 minus `pixel_mean()`, our input.

    Returns:
        The state dict, names beginning with ``body.``, and the names of convolutions that lack a weight or bias; these,
        and the classifier, are left out.

    Raises:
        FileNotFoundError: the folder holds no conv1.weight.npy.
    """
    if not os.path.isfile(os.path.join(folder, "conv1.weight.npy")):
        raise FileNotFoundError(f"{folder} holds no conv1.weight.npy; give the folder of a ResNet's .npy files")
    names = {name.removesuffix(".npy") for name in os.listdir(folder) if name.endswith(".npy")}
    convolutions = sorted({name.rpartition(".")[0] for name in names} - {"fc"})
    state: dict[str, Tensor] = {}
    incomplete = []
    for convolution in convolutions:
        if not {f"{convolution}.weight", f"{convolution}.bias"} <= names:
            incomplete.append(convolution)
            continue
        weight, bias = (torch.from_numpy(np.load(_path(folder, convolution, leaf))) for leaf in ("weight", "bias"))
        target, norm = _own_names(convolution)
        state[f"{target}.weight"] = _for_bgr255(weight) if convolution == "conv1" else weight
        state |= {
            f"{norm}.weight": torch.ones_like(bias),
            f"{norm}.bias": bias,
            f"{norm}.running_mean": torch.zeros_like(bias),
            f"{norm}.running_var": torch.ones_like(bias),
        }
    return state, incomplete


def pixel_mean() -> Sequence[float]:
    """INPUT.PIXEL_MEAN (BGR, 0..255) that goes with the converted weights; INPUT.PIXEL_STD is 1."""
    return [255 * value for value in reversed(IMAGENET_MEAN)]


def _path(folder: str, convolution: str, leaf: str) -> str:
    return os.path.join(folder, f"{convolution}.{leaf}.npy")


def _own_names(convolution: str) -> tuple[str, str]:
    """Names of a torchvision convolution and of its norm in our body."""
    if convolution == "conv1":
        return "body.stem.conv1", "body.stem.bn1"
    parent, _, leaf = convolution.rpartition(".")
    norm = f"{parent}.1" if parent.endswith("downsample") else f"{parent}.{leaf.replace('conv', 'bn')}"
    return f"body.{convolution}", f"body.{norm}"


def _for_bgr255(weight: Tensor) -> Tensor:
    """First convolution [C, 3, 7, 7] for RGB (x - mean) / std in 0..1 -> the same for BGR x - mean in 0..255."""
    std = torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1)
    return (weight / (255 * std)).flip(1)
