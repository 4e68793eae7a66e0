"""The config tree and the checks on it. ``cfg`` is the one global tree; only entry points name it."""

from __future__ import annotations

from maskrcnn_benchmark.config.classes import class_count, class_count_key, only_proposes
from maskrcnn_benchmark.config.defaults import _C as cfg
from maskrcnn_benchmark.config.node import CfgNode, ConfigKeyError
from maskrcnn_benchmark.config.validate import validate

__all__ = [
    "CfgNode",
    "ConfigKeyError",
    "cfg",
    "class_count",
    "class_count_key",
    "only_proposes",
    "validate",
]
