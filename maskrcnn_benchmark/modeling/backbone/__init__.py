"""Backbones: residual networks with a feature pyramid."""

from maskrcnn_benchmark.modeling.backbone.backbone import build_backbone

__all__ = ["build_backbone"]
