"""Builders of the exchangeable parts, by name: an entry has from_config, or is called with (cfg, in_channels)."""

from __future__ import annotations

from maskrcnn_benchmark.utils.registry import Registry

BACKBONES = Registry("BACKBONES")
# What follows the backbone: called like RPNModule, and what it returns has to_boxlists(image_sizes).
RPN_MODULES = Registry("RPN_MODULES", {"RetinaNet": "maskrcnn_benchmark.modeling.rpn.retinanet.retinanet"})
RPN_HEADS = Registry("RPN_HEADS")
ROI_BOX_FEATURE_EXTRACTORS = Registry("ROI_BOX_FEATURE_EXTRACTORS")
ROI_BOX_PREDICTOR = Registry("ROI_BOX_PREDICTOR")
ROI_MASK_FEATURE_EXTRACTORS = Registry("ROI_MASK_FEATURE_EXTRACTORS")
ROI_MASK_PREDICTOR = Registry("ROI_MASK_PREDICTOR")
ROI_KEYPOINT_FEATURE_EXTRACTORS = Registry("ROI_KEYPOINT_FEATURE_EXTRACTORS")
ROI_KEYPOINT_PREDICTOR = Registry("ROI_KEYPOINT_PREDICTOR")
