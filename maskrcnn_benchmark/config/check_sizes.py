"""Checks that the sizes of layers and pictures are such that a machine could hold them."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

# Far beyond any published network or picture; what is larger is a slip, or somebody who means harm.
LARGEST_LAYER = 1 << 16
LARGEST_SIDE = 1 << 16
MOST_ANCHORS = 64  # sizes of one place
_LAYERS = (
    "BACKBONE.OUT_CHANNELS", "GROUP_NORM.NUM_GROUPS", "RESNETS.NUM_GROUPS", "RESNETS.WIDTH_PER_GROUP",
    "RESNETS.RES5_DILATION", "RESNETS.RES2_OUT_CHANNELS", "RESNETS.STEM_OUT_CHANNELS", "RESNETS.DEFORMABLE_GROUPS",
    "ROI_BOX_HEAD.POOLER_RESOLUTION", "ROI_BOX_HEAD.NUM_CLASSES", "ROI_BOX_HEAD.MLP_HEAD_DIM", "ROI_BOX_HEAD.DILATION",
    "ROI_BOX_HEAD.CONV_HEAD_DIM", "ROI_MASK_HEAD.POOLER_RESOLUTION", "ROI_MASK_HEAD.MLP_HEAD_DIM",
    "ROI_MASK_HEAD.RESOLUTION", "ROI_MASK_HEAD.DILATION", "ROI_KEYPOINT_HEAD.POOLER_RESOLUTION",
    "ROI_KEYPOINT_HEAD.MLP_HEAD_DIM", "ROI_KEYPOINT_HEAD.RESOLUTION", "ROI_KEYPOINT_HEAD.NUM_CLASSES",
    "RETINANET.NUM_CLASSES", "FBNET.WIDTH_DIVISOR",
)  # fmt: skip
_COUNTS = {"ROI_BOX_HEAD.NUM_STACKED_CONVS": 256, "RETINANET.NUM_CONVS": 256}
_PICTURES = (
    "INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST",
    "DATALOADER.SIZE_DIVISIBILITY", "TEST.BBOX_AUG.MAX_SIZE", "TEST.BBOX_AUG.SCALES",
)  # fmt: skip


def check_sizes(cfg: CfgNode) -> None:
    """Check every number that a layer or a picture is as large as.

    Raises:
        ValueError: with the key, its value and what it may be.
    """
    for key in _LAYERS:
        _require(cfg, f"MODEL.{key}", 1, LARGEST_LAYER)
    for key, most in _COUNTS.items():
        _require(cfg, f"MODEL.{key}", 0, most)
    for head in ("ROI_MASK_HEAD", "ROI_KEYPOINT_HEAD"):
        _require(cfg, f"MODEL.{head}.CONV_LAYERS", 1, LARGEST_LAYER)
    _require(cfg, "MODEL.RETINANET.SCALES_PER_OCTAVE", 1, MOST_ANCHORS)
    for key in _PICTURES:
        _require(cfg, key, None, LARGEST_SIDE)
    if len(cfg.MODEL.RESNETS.STAGE_WITH_DCN) != 4:
        raise ValueError(
            f"MODEL.RESNETS.STAGE_WITH_DCN must be four truth values, for res2 to res5, but is "
            f"{cfg.MODEL.RESNETS.STAGE_WITH_DCN!r}"
        )


def _require(cfg: CfgNode, key: str, least: int | None, most: int) -> None:
    """Check a number, or each one in a tuple; ``least`` None: another check finds what is too small."""
    value: Any = cfg
    for part in key.split("."):
        value = value[part]
    numbers = value if isinstance(value, (tuple, list)) else (value,)
    for number in numbers:
        if least is not None and not isinstance(number, int):
            raise ValueError(f"{key} must hold whole numbers, but is {value!r}")
        if isinstance(number, (int, float)) and not (least if least is not None else number) <= number <= most:
            needed = f"{least} to {most}" if least is not None else f"at most {most}"
            raise ValueError(f"{key} must be {needed}, but is {value!r}")
