"""Caffe2 blobs: ImageNet models and the end-to-end models of Detectron."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.convert.layers import (
    Layer,
    block_layer,
    box_conv,
    layer,
    numbered,
    retinanet_deltas,
    retinanet_logits,
    stem,
)

_BLOB = re.compile(r"(.+?)(_bn|_gn)?_([wbs])")
_LEAVES = {"w": "weight", "b": "bias", "s": "weight"}
_BRANCHES = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
_PLAIN = {
    "cls_score": "predictor.cls_score",
    "bbox_pred": "predictor.bbox_pred",
    "mask_fcn_logits": "predictor.mask_fcn_logits",
    "conv5_mask": "predictor.conv5_mask",
    "kps_score_lowres": "predictor.kps_score_lowres",
    "fc1000": "fc1000",  # ImageNet's classifier, which the network does not have; ResNeXt calls it pred
    "pred": "fc1000",
}
_RPN = {
    "conv_rpn": "rpn.head.conv",
    "rpn_cls_logits": "rpn.head.cls_logits",
    "rpn_bbox_pred": "rpn.head.bbox_pred",
    "retnet_cls_pred": "rpn.head.cls_logits",
    "retnet_bbox_pred": "rpn.head.bbox_pred",
}


def from_caffe2(blobs: Mapping[str, object]) -> dict[str, Tensor]:
    """Blobs of a Caffe2 file as tensors of ours.

    A frozen batch norm has scale and bias only; its statistics are neutral. Momentum of the optimiser is dropped.

    Args:
        blobs: blob name -> array; values that are no arrays are passed over.

    Returns:
        Our names (suffixes of them) -> tensor. A blob of no known layer keeps its name, so that it can be reported.
    """
    arrays = {
        name: torch.from_numpy(np.ascontiguousarray(value))
        for name, value in blobs.items()
        if isinstance(value, np.ndarray) and value.ndim and not name.endswith("_momentum")
    }
    normed = {match.group(1) for name in arrays if (match := _BLOB.fullmatch(name)) and match.group(2)}
    state: dict[str, Tensor] = {}
    for name, tensor in arrays.items():
        match = _BLOB.fullmatch(name)
        place = _place(match.group(1), normed) if match else None
        if match is None or place is None:
            state[name] = tensor
            continue
        kind, leaf = match.group(2), match.group(3)
        target = place.norm if kind else place.weights
        state[f"{target}.{_LEAVES[leaf]}"] = _in_our_order(name, tensor, arrays)
        if kind == "_bn" and leaf == "s":
            state[f"{target}.running_mean"] = torch.zeros_like(tensor)
            state[f"{target}.running_var"] = torch.ones_like(tensor)
    return state


def strides_in_3x3(blobs: Mapping[str, object]) -> bool:
    """Whether the bottlenecks halve the resolution in their 3x3 convolution: those with group norm or groups do."""
    first, second = blobs.get("res2_0_branch2a_w"), blobs.get("res2_0_branch2b_w")
    grouped = isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and second.shape[1] != first.shape[0]
    return grouped or "conv1_gn_s" in blobs


def _place(blob: str, normed: set[str]) -> Layer | None:
    """The layer of ours that a blob, its ending cut off, belongs to."""
    if blob in ("conv1", "res_conv1"):
        return stem()
    if match := re.fullmatch(r"res([2-5])_(\d+)_(branch1|branch2[abc])", blob):
        return block_layer(int(match.group(1)), int(match.group(2)), _BRANCHES[match.group(3)])
    if blob in _PLAIN:
        return Layer(_PLAIN[blob], "")
    return _pyramid(blob, normed) or _head(blob, normed) or _dense(blob)


def _pyramid(blob: str, normed: set[str]) -> Layer | None:
    # fpn_inner_res4_5_sum_lateral and fpn_res4_5_sum: stage 4, whose last block is the fifth, so that depth shows
    if match := re.fullmatch(r"fpn_(inner_)?res([2-5])_\d+_sum(_lateral)?", blob):
        kind = "inner" if match.group(1) else "layer"
        return layer(f"fpn.fpn_{kind}{int(match.group(2)) - 1}", blob in normed)
    level = numbered(r"fpn_([67])", blob)
    return Layer(f"top_blocks.p{level}", "") if level else None


def _head(blob: str, normed: set[str]) -> Layer | None:
    if blob in ("fc6", "fc7"):
        return layer(f"feature_extractor.{blob}", blob in normed)
    if number := numbered(r"head_conv(\d+)", blob):
        return box_conv(number, blob in normed)
    if number := numbered(r"_(?:\[mask\]|mask)_fcn(\d+)", blob):
        return layer(f"feature_extractor.mask_fcn{number}", blob in normed)
    if number := numbered(r"conv_fcn(\d+)", blob):
        return layer(f"feature_extractor.conv_fcn{number}", blob in normed)
    return None


def _dense(blob: str) -> Layer | None:
    """RPN and RetinaNet; the lowest level of a pyramid holds what all share, and gives the blob its ending."""
    name = re.sub(r"_fpn[23]$", "", blob)
    if name in _RPN:
        return Layer(_RPN[name], "")
    if match := re.fullmatch(r"retnet_(cls|bbox)_conv_n(\d+)", name):
        return Layer(f"rpn.head.{match.group(1)}_tower.{2 * int(match.group(2))}", "")
    return None


def _in_our_order(name: str, tensor: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
    """RetinaNet's anchors run over sizes first in Detectron; those of the RPN lie as ours do."""
    if name.startswith("retnet_bbox_pred"):
        return retinanet_deltas(tensor)
    if name.startswith("retnet_cls_pred"):
        deltas = arrays.get(name.replace("cls", "bbox"))
        return tensor if deltas is None else retinanet_logits(tensor, deltas.shape[0] // 4)
    return tensor
