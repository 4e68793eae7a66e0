"""Builders of the exchangeable parts, by name: an entry has from_config, or is called with (cfg, in_channels)."""

from __future__ import annotations

from maskrcnn_benchmark.utils.registry import Registry

_FBNET = "maskrcnn_benchmark.modeling.backbone.fbnet"

BACKBONES = Registry("BACKBONES", {"FBNet": _FBNET})
# What follows the backbone: called like RPNModule, and what it returns has to_boxlists(image_sizes).
RPN_MODULES = Registry("RPN_MODULES", {"RetinaNet": "maskrcnn_benchmark.modeling.rpn.retinanet.retinanet"})
RPN_HEADS = Registry("RPN_HEADS", {"FBNet.rpn_head": _FBNET})
# Heads beside the box head, by their name in the state dict: called with (cfg, in_channels, box_feature_extractor),
# where MODEL.<NAME>_ON asks for one. `CombinedROIHeads` says what they have to offer.
ROI_HEADS = Registry(
    "ROI_HEADS",
    {
        "mask": "maskrcnn_benchmark.modeling.roi_heads.mask_head.mask_head",
        "keypoint": "maskrcnn_benchmark.modeling.roi_heads.keypoint_head.keypoint_head",
    },
)
ROI_BOX_FEATURE_EXTRACTORS = Registry("ROI_BOX_FEATURE_EXTRACTORS", {"FBNet.roi_head": _FBNET})
ROI_BOX_PREDICTOR = Registry("ROI_BOX_PREDICTOR")
ROI_MASK_FEATURE_EXTRACTORS = Registry("ROI_MASK_FEATURE_EXTRACTORS", {"FBNet.roi_head_mask": _FBNET})
ROI_MASK_PREDICTOR = Registry("ROI_MASK_PREDICTOR")
ROI_KEYPOINT_FEATURE_EXTRACTORS = Registry("ROI_KEYPOINT_FEATURE_EXTRACTORS", {"FBNet.roi_head_keypoints": _FBNET})
ROI_KEYPOINT_PREDICTOR = Registry("ROI_KEYPOINT_PREDICTOR")
