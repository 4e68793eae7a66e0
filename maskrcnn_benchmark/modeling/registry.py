"""Builders of the exchangeable parts, by name: an entry has from_config, or is called with (cfg, in_channels)."""

from __future__ import annotations

from maskrcnn_benchmark.utils.registry import Registry

BACKBONES = Registry("BACKBONES")
RPN_HEADS = Registry("RPN_HEADS")
ROI_BOX_FEATURE_EXTRACTORS = Registry("ROI_BOX_FEATURE_EXTRACTORS")
ROI_BOX_PREDICTOR = Registry("ROI_BOX_PREDICTOR")
ROI_MASK_FEATURE_EXTRACTORS = Registry("ROI_MASK_FEATURE_EXTRACTORS")
ROI_MASK_PREDICTOR = Registry("ROI_MASK_PREDICTOR")
ROI_KEYPOINT_FEATURE_EXTRACTORS = Registry("ROI_KEYPOINT_FEATURE_EXTRACTORS")
ROI_KEYPOINT_PREDICTOR = Registry("ROI_KEYPOINT_PREDICTOR")
