"""detectron2's ResNets and its R-CNNs and RetinaNets with C4 and FPN backbones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from maskrcnn_benchmark.checkpoint.convert.layers import (
    Layer,
    background_first,
    block_layer,
    box_conv,
    layer,
    numbered,
    prepend_background,
    ratios_slowest,
    retinanet_deltas,
    retinanet_logits,
    stem,
    usable_variance,
)

_NAME = re.compile(r"(.+?)(\.norm)?\.(weight|bias|running_mean|running_var)")
_MARKS = re.compile(
    r"backbone\.bottom_up\.|backbone\.(fpn_lateral|fpn_output|res)\d|proposal_generator\.rpn_head\."
    r"|(backbone\.)?(bottom_up\.)?stem\.conv1\.norm\.|res[2-5]\.\d+\.(conv\d|shortcut)\."
)
_PLAIN = {
    "proposal_generator.rpn_head.conv": "rpn.head.conv",
    "proposal_generator.rpn_head.objectness_logits": "rpn.head.cls_logits",
    "proposal_generator.rpn_head.anchor_deltas": "rpn.head.bbox_pred",
    "roi_heads.box_predictor.cls_score": "predictor.cls_score",
    "roi_heads.box_predictor.bbox_pred": "predictor.bbox_pred",
    "roi_heads.mask_head.deconv": "predictor.conv5_mask",
    "roi_heads.mask_head.predictor": "predictor.mask_fcn_logits",
    "roi_heads.keypoint_head.score_lowres": "predictor.kps_score_lowres",
    "head.cls_score": "rpn.head.cls_logits",
    "head.bbox_pred": "rpn.head.bbox_pred",
}
# Set by the config here: nothing of the file is needed.
_COMPUTED = re.compile(r"pixel_mean|pixel_std|.*anchor_generator\.cell_anchors.*|.*num_batches_tracked")


def is_detectron2(names: Iterable[str]) -> bool:
    """Whether these are names of detectron2: no other program calls anything so."""
    return any(_MARKS.match(name) for name in names)


def from_detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a detectron2 model as tensors of ours.

    The background is detectron2's last class and our first; it has no rows among the boxes and masks there, and rows
    that nothing reads here. Several anchors of one place lie by size there and by aspect ratio here.

    Args:
        state: the file's names -> tensor.

    Returns:
        Our names (suffixes of them) -> tensor. A name of no known layer stays, so that it can be reported.
    """
    state = {name: tensor for name, tensor in state.items() if not _COMPUTED.fullmatch(name)}
    matches = {name: _NAME.fullmatch(name) for name in state}
    normed = {match.group(1) for match in matches.values() if match and match.group(2)}
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = matches[name]
        place = _place(match.group(1), normed) if match else None
        if match is None or place is None:
            converted[name] = tensor
            continue
        target, leaf = place.norm if match.group(2) else place.weights, match.group(3)
        tensor = usable_variance(tensor) if leaf == "running_var" else tensor
        converted[f"{target}.{leaf}"] = _in_our_layout(match.group(1), tensor, state)
    return converted


def _place(name: str, normed: set[str]) -> Layer | None:
    short = re.sub(r"^(backbone\.)?(bottom_up\.)?", "", name)
    if short == "stem.conv1":
        return stem()
    if match := re.fullmatch(r"(?:roi_heads\.)?res([2-5])\.(\d+)\.(conv[123]|conv2_offset|shortcut)", short):
        return block_layer(int(match.group(1)), int(match.group(2)), match.group(3))
    if match := re.fullmatch(r"fpn_(lateral|output)([2-5])", short):
        kind = "inner" if match.group(1) == "lateral" else "layer"
        return layer(f"fpn.fpn_{kind}{int(match.group(2)) - 1}", name in normed)
    if level := numbered(r"top_block\.p([67])", short):
        return Layer(f"top_blocks.p{level}", "")
    if name in _PLAIN:
        return Layer(_PLAIN[name], "")
    return _head(name, normed)


def _head(name: str, normed: set[str]) -> Layer | None:
    if number := numbered(r"roi_heads\.box_head\.conv(\d+)", name):
        return box_conv(number, name in normed)
    if number := numbered(r"roi_heads\.box_head\.fc(\d+)", name):
        return layer(f"feature_extractor.fc{number + 5}", name in normed)
    if number := numbered(r"roi_heads\.mask_head\.mask_fcn(\d+)", name):
        return layer(f"feature_extractor.mask_fcn{number}", name in normed)
    if number := numbered(r"roi_heads\.keypoint_head\.conv_fcn(\d+)", name):
        return layer(f"feature_extractor.conv_fcn{number}", name in normed)
    if match := re.fullmatch(r"head\.(cls|bbox)_subnet\.(\d+)", name):
        return Layer(f"rpn.head.{match.group(1)}_tower.{match.group(2)}", "")
    return None


def _in_our_layout(layer_name: str, tensor: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Order and number of the rows; every layer that is not named keeps them."""
    if layer_name == "roi_heads.box_predictor.cls_score":
        return background_first(tensor)
    if layer_name == "roi_heads.box_predictor.bbox_pred":
        return prepend_background(tensor, 4)
    if layer_name == "roi_heads.mask_head.predictor":
        return prepend_background(tensor, 1)
    if layer_name == "proposal_generator.rpn_head.objectness_logits":
        return ratios_slowest(tensor, 1)
    if layer_name == "proposal_generator.rpn_head.anchor_deltas":
        return ratios_slowest(tensor, 4)
    if layer_name == "head.bbox_pred":
        return retinanet_deltas(tensor)
    if layer_name == "head.cls_score" and "head.bbox_pred.bias" in state:
        return retinanet_logits(tensor, state["head.bbox_pred.bias"].shape[0] // 4)
    return tensor
