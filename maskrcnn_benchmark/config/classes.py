"""What a config says of the classes, wherever the chosen family of networks keeps it."""

from __future__ import annotations

from yacs.config import CfgNode


def class_count_key(cfg: CfgNode) -> str:
    """The key that holds the number of classes with background."""
    return "MODEL.RETINANET.NUM_CLASSES" if cfg.MODEL.RETINANET_ON else "MODEL.ROI_BOX_HEAD.NUM_CLASSES"


def class_count(cfg: CfgNode) -> int:
    """The number of classes with background."""
    section = cfg.MODEL.RETINANET if cfg.MODEL.RETINANET_ON else cfg.MODEL.ROI_BOX_HEAD
    return section.NUM_CLASSES


def set_class_count(cfg: CfgNode, num_classes: int) -> None:
    """Set the number of classes with background."""
    section = cfg.MODEL.RETINANET if cfg.MODEL.RETINANET_ON else cfg.MODEL.ROI_BOX_HEAD
    section.NUM_CLASSES = num_classes


def only_proposes(cfg: CfgNode) -> bool:
    """Whether the network gives proposals without classes. RetinaNet's files set MODEL.RPN_ONLY too, but it detects."""
    return cfg.MODEL.RPN_ONLY and not cfg.MODEL.RETINANET_ON
