"""Networks by the name that MODEL.META_ARCHITECTURE gives."""

from __future__ import annotations

from typing import Any

from maskrcnn_benchmark.layers.conv import allow_winograd
from maskrcnn_benchmark.modeling.detector.generalized_rcnn import GeneralizedRCNN

_META_ARCHITECTURES = {"GeneralizedRCNN": GeneralizedRCNN}


def build_detection_model(cfg: Any) -> GeneralizedRCNN:
    """Build the network that cfg.MODEL describes.

    Raises:
        KeyError: for an unknown MODEL.META_ARCHITECTURE.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in _META_ARCHITECTURES:
        raise KeyError(f"MODEL.META_ARCHITECTURE is {name!r}; known: {', '.join(_META_ARCHITECTURES)}")
    model = _META_ARCHITECTURES[name].from_config(cfg)
    allow_winograd(model, cfg.MODEL.WINOGRAD)
    return model
