"""Which program wrote a file of weights, by what is in it, and its tensors under our names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.convert import (
    from_caffe2,
    from_detectron2,
    from_torchvision,
    is_detectron2,
    is_torchvision,
)
from maskrcnn_benchmark.checkpoint.convert.caffe2 import strides_in_3x3
from maskrcnn_benchmark.checkpoint.files import read_weights
from maskrcnn_benchmark.checkpoint.inputs import DETECTRON2_INPUT, TORCHVISION_INPUT, ImageInput, caffe2_input
from maskrcnn_benchmark.checkpoint.unpickle import read_arrays
from maskrcnn_benchmark.utils.model_serialization import strip_wrapper_prefix

_ZIP = b"PK\x03\x04"
# What torch.save wrote before it wrote zip files: a pickle of the number 0x1950a86a20f9469cfc6c.
_TORCH_NUMBER = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_TEXT_MARKS = {
    b"<": "is a web page",
    b"{": "is a json file",
    b"version https://git-lfs": "is a git-lfs pointer, not the file itself",
}
_CAFFE2_NAME = re.compile(r"res[2-5]_\d+_branch\w+|conv1_w|conv_rpn\w*_w")


@dataclass(frozen=True)
class Weights:
    """Weights under our names.

    Args:
        state: our names, or suffixes of them, -> tensor.
        program: which program wrote them.
        image_input: what images they were trained with; None where the file does not tell.
        extras: what else the file holds: optimizer, scheduler, iteration.
    """

    state: dict[str, Tensor]
    program: str
    image_input: ImageInput | None
    extras: dict[str, Any]


def read_any(path: str, model_state: Mapping[str, Tensor]) -> Weights:
    """Read a local file of weights of any program that is known here.

    Args:
        path: a Caffe2 or detectron2 pickle, or what torch.save wrote; the name's ending plays no part.
        model_state: names and tensors of the model to be filled, which decides between numberings of COCO's classes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds more than plain data, or no weights.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"weights file {path} does not exist; put it there, or start without weights: MODEL.WEIGHT ''"
        )
    with open(path, "rb") as file:
        head = file.read(64)
    for mark, what in _TEXT_MARKS.items():
        if head.lstrip().startswith(mark):
            raise ValueError(f"{path} {what}, and holds no weights")
    is_torch = head.startswith(_ZIP) or _TORCH_NUMBER in head[:16]
    data = read_weights(path) if is_torch else read_arrays(path)
    return interpret(data, model_state, source=path)


def interpret(data: Mapping[str, Any], model_state: Mapping[str, Tensor], *, source: str) -> Weights:
    """Weights in the content of a file: its entry ``model`` or ``blobs``, or the file itself.

    Raises:
        ValueError: there are none; ``source`` is named.
    """
    blobs = data.get("blobs", data)
    if isinstance(blobs, Mapping) and any(_CAFFE2_NAME.fullmatch(str(name)) for name in blobs):
        needs = caffe2_input(stride_in_1x1=not strides_in_3x3(blobs))
        return Weights(from_caffe2(blobs), "Caffe2", needs, {})
    state = _tensors(data, source)
    extras = {key: value for key, value in data.items() if key != "model"} if "model" in data else {}
    if is_detectron2(state):
        return Weights(from_detectron2(state), "detectron2", _detectron2_input(data, state), {})
    if is_torchvision(state):
        converted = from_torchvision(state, num_classes=_num_classes(model_state))
        return Weights(converted, "torchvision", TORCHVISION_INPUT, {})
    return Weights(state, "maskrcnn_benchmark", None, extras)


def _tensors(data: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    state = data.get("model", data.get("state_dict", data))
    if isinstance(state, Mapping):
        # Some programs put a few words and numbers about themselves among the tensors.
        state = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in state.items()
            if isinstance(name, str) and not isinstance(value, (str, int, float, type(None)))
        }
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{source} holds no weights: neither an entry 'model' or 'blobs' nor a plain dict of tensors")
    return strip_wrapper_prefix(state)


def _detectron2_input(data: Mapping[str, Any], state: Mapping[str, Tensor]) -> ImageInput:
    if data.get("__author__") == "torchvision":
        return TORCHVISION_INPUT
    if {"pixel_mean", "pixel_std"} <= state.keys():
        mean, std = (tuple(state[name].flatten().tolist()) for name in ("pixel_mean", "pixel_std"))
        if len(mean) == 3 and mean[0] < mean[2]:  # blue is the darkest channel of natural images: BGR
            return ImageInput(True, mean, std)
    return DETECTRON2_INPUT


def _num_classes(model_state: Mapping[str, Tensor]) -> int | None:
    sizes = [tensor.shape[0] for name, tensor in model_state.items() if name.endswith("predictor.cls_score.bias")]
    return sizes[0] if sizes else None
