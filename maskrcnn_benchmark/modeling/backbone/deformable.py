"""Which stages of a residual network convolve deformably. Source: Zhu et al., Deformable ConvNets v2 (2019)."""

from __future__ import annotations

from functools import partial
from typing import Any

from maskrcnn_benchmark.layers.deform_conv import DFConv2d
from maskrcnn_benchmark.modeling.backbone.residual_blocks import ConvFactory


def make_stage_convs(cfg: Any) -> tuple[ConvFactory | None, ...]:
    """Return for res2 to res5 what builds the bottlenecks' 3x3 convolution, None for the ordinary one.

    Read are MODEL.RESNETS.STAGE_WITH_DCN, WITH_MODULATED_DCN and DEFORMABLE_GROUPS.
    """
    resnets = cfg.MODEL.RESNETS
    deformable = partial(
        DFConv2d, with_modulated_dcn=resnets.WITH_MODULATED_DCN, deformable_groups=resnets.DEFORMABLE_GROUPS
    )
    return tuple(deformable if asked_for else None for asked_for in resnets.STAGE_WITH_DCN)
