"""How each peer does what an op of ours on RoIs and boxes does, on the same tensors.

Functions named after a piece of work return it as a call without arguments, with everything prepared that the peer
would have at hand: it is the call alone that is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Work = Callable[[], Any]
Size = tuple[int, int]


# RoIs.


def torchvision_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    output_size: Sequence[int],
    scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    """As its MultiScaleRoIAlign goes from level to level; the levels of the rois are given."""
    output = features[0].new_zeros(len(rois), features[0].shape[1], *output_size)
    for level, scale in enumerate(scales):
        chosen = (levels == level).nonzero().squeeze(1)
        output[chosen] = torch.ops.torchvision.roi_align(
            features[level], rois[chosen], scale, *output_size, sampling_ratio, False
        )
    return output


def torchvision_roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor,
    num_images: int,
    heights: Sequence[int],
    widths: Sequence[int],
    scales: Sequence[float],
    sampling_ratio: int,
    _channels_last: bool,
) -> list[Tensor]:
    """The gradients of all levels."""
    grads, channels, bins = [], grad.shape[1], grad.shape[2:]
    for level, scale in enumerate(scales):
        chosen = (levels == level).nonzero().squeeze(1)
        size = (num_images, channels, heights[level], widths[level])
        grads.append(
            torch.ops.torchvision._roi_align_backward(
                grad[chosen], rois[chosen], scale, *bins, *size, sampling_ratio, False
            )
        )
    return grads


def torchvision_roi_pool_backward(
    grad: Tensor, features: Tensor, rois: Tensor, bins: Sequence[int], scale: float
) -> Work:
    """The gradient of the map, from the places of the maxima."""
    places = torch.ops.torchvision.roi_pool(features, rois, scale, *bins)[1]
    return lambda: torch.ops.torchvision._roi_pool_backward(grad, rois, places, scale, *bins, *features.shape)


def torchvision_deform_conv(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *_groups: int,
) -> Tensor:
    """Deformable convolution, version 2."""
    from torchvision.ops import deform_conv2d

    return deform_conv2d(input, offset, weight, None, tuple(stride), tuple(padding), tuple(dilation), mask)


def torchvision_deform_conv_grad(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset and mask."""
    numbers = (*stride, *padding, *dilation, groups, offset_groups, True)
    bias = weight.new_zeros(weight.shape[0])
    grads = torch.ops.torchvision._deform_conv2d_backward(grad, input, weight, offset, mask, bias, *numbers)
    return grads[:4]


# Boxes.


def torchvision_nms_of_levels(boxes: Tensor, threshold: float) -> Work:
    """Kept boxes of rows [B, K, 4], each sorted by score and by itself."""
    from torchvision.ops import batched_nms

    rows, slots = boxes.shape[:2]
    scores = torch.linspace(1, 0, slots, device=boxes.device).repeat(rows)
    levels = torch.arange(rows, device=boxes.device).repeat_interleave(slots)
    return lambda: batched_nms(boxes.flatten(0, 1), scores, levels, threshold)


def torchvision_match(anchors: Tensor, objects: Tensor, high: float, low: float, low_quality: bool) -> Work:
    """The matrix of overlaps, and its Matcher."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    matcher = Matcher(high, low, allow_low_quality_matches=low_quality)
    return lambda: matcher(box_iou(objects, anchors))


def detectron2_match(anchors: Tensor, objects: Tensor, high: float, low: float, low_quality: bool) -> Work:
    """The matrix of overlaps, and its Matcher."""
    from detectron2.modeling.matcher import Matcher
    from detectron2.structures import Boxes, pairwise_iou

    thresholds, labels = ([low, high], [0, -1, 1]) if low < high else ([high], [0, 1])
    matcher = Matcher(thresholds, labels, allow_low_quality_matches=low_quality)
    return lambda: matcher(pairwise_iou(Boxes(objects), Boxes(anchors)))


def torchvision_encode(weights: tuple[float, ...], objects: Tensor, boxes: Tensor) -> Work:
    """Codes of boxes towards objects."""
    from torchvision.models.detection._utils import BoxCoder

    coder = BoxCoder(weights)
    return lambda: coder.encode_single(objects, boxes)


def torchvision_decode(weights: tuple[float, ...], codes: Tensor, boxes: Tensor) -> Work:
    """Boxes moved by codes."""
    from torchvision.models.detection._utils import BoxCoder

    coder = BoxCoder(weights)
    return lambda: coder.decode_single(codes, boxes)


def detectron2_encode(weights: tuple[float, ...], objects: Tensor, boxes: Tensor) -> Work:
    """Codes of boxes towards objects."""
    from detectron2.modeling.box_regression import Box2BoxTransform

    # It refuses boxes without a side, which ours and torchvision turn into infinite codes.
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    boxes = torch.cat([boxes[:, :2], boxes[:, :2] + sides], dim=1)
    transform = Box2BoxTransform(weights)
    return lambda: transform.get_deltas(boxes, objects)


def detectron2_decode(weights: tuple[float, ...], codes: Tensor, boxes: Tensor) -> Work:
    """Boxes moved by codes."""
    from detectron2.modeling.box_regression import Box2BoxTransform

    transform = Box2BoxTransform(weights)
    return lambda: transform.apply_deltas(codes, boxes)


def torchvision_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    size: Size,
    settings: Mapping[str, Any],
) -> Work:
    """Its RPN from the maps to proposals."""
    from torchvision.models.detection.rpn import RegionProposalNetwork

    numbers = ({"training": settings[key], "testing": settings[key]} for key in ("pre_nms_top_n", "post_nms_top_n"))
    rpn = RegionProposalNetwork(None, None, 0.7, 0.3, 256, 0.5, *numbers, settings["nms_thresh"]).eval()
    counts = [level.shape[1] for level in logits]

    def propose() -> Any:
        boxes = rpn.box_coder.decode(torch.cat(list(deltas), dim=1).flatten(0, 1), [torch.cat(list(anchors))])
        return rpn.filter_proposals(boxes.view(1, -1, 4), torch.cat(list(logits), dim=1), [size], counts)

    return propose


def detectron2_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    size: Size,
    settings: Mapping[str, Any],
) -> Work:
    """Its RPN from the maps to proposals."""
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals

    transform = Box2BoxTransform((1.0,) * 4)
    limits = (settings["nms_thresh"], settings["pre_nms_top_n"], settings["post_nms_top_n"], 0.0, False)

    def propose() -> Any:
        pairs = zip(deltas, anchors, strict=True)
        boxes = [transform.apply_deltas(codes[0], level)[None] for codes, level in pairs]
        return find_top_rpn_proposals(boxes, list(logits), [size], *limits)

    return propose


def torchvision_detections(
    logits: Tensor, deltas: Tensor, boxes: Tensor, size: Size, limits: Mapping[str, Any]
) -> Work:
    """Its box head from the figures of the classes to detections."""
    from torchvision.models.detection.roi_heads import RoIHeads

    numbers = (limits[key] for key in ("score_thresh", "nms_thresh", "detections_per_img"))
    heads = RoIHeads(None, None, None, 0.5, 0.5, 512, 0.25, None, *numbers)
    return lambda: heads.postprocess_detections(logits, deltas, [boxes], [size])


def detectron2_detections(logits: Tensor, deltas: Tensor, boxes: Tensor, size: Size, limits: Mapping[str, Any]) -> Work:
    """Its box head from the figures of the classes to detections."""
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    numbers = tuple(limits[key] for key in ("score_thresh", "nms_thresh", "detections_per_img"))
    # It has the background behind the classes, and no codes for it.
    turned, codes = logits.roll(-1, dims=1), deltas[:, 4:].contiguous()

    def detect() -> Any:
        moved = transform.apply_deltas(codes, boxes)
        return fast_rcnn_inference([moved], [turned.softmax(dim=1)], [size], *numbers)

    return detect
