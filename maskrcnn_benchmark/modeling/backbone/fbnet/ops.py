"""The blocks by the names that architectures use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from maskrcnn_benchmark.modeling.backbone.fbnet.architectures import Block
from maskrcnn_benchmark.modeling.backbone.fbnet.blocks import CascadeConv3x3, InvertedResidual, ShiftBlock5x5, Skip
from maskrcnn_benchmark.modeling.make_layers import NormFactory


class IR(NamedTuple):
    """An inverted residual: see InvertedResidual."""

    kernel_size: int
    expansion: int | None = None  # None: what the architecture says
    groups: int = 1
    num_depthwise: int = 1
    squeeze_excite: bool = False


_BASE_OPS = {
    "ir_k1": IR(1),
    "ir_k3": IR(3),
    "ir_k5": IR(5),
    "ir_k7": IR(7),
    "shuffle": IR(3, groups=4),
    "ir_k3_sep": IR(3, num_depthwise=2),
    "ir_k7_sep": IR(7, num_depthwise=2),
    **{f"ir_k7_e{e}": IR(7, e) for e in (1, 3, 6)},
    **{f"ir_k33_e{e}": IR(3, e, num_depthwise=2) for e in (1, 3, 6)},
    **{f"ir_k7_sep_e{e}": IR(7, e, num_depthwise=2) for e in (1, 3, 6)},
}
# e1: expansion 1; s4: expansion and groups 4; s2: groups 2 without expansion.
_SE_OPS = {
    f"ir_k{k}_{name}": IR(k, expansion, groups)
    for k in (3, 5)
    for name, expansion, groups in (("e1", 1, 1), ("e3", 3, 1), ("e6", 6, 1), ("s4", 4, 4), ("s2", 1, 2))
}
_OTHER_OPS: dict[str, type[nn.Module]] = {"skip": Skip, "basic_block": CascadeConv3x3, "shift_5x5": ShiftBlock5x5}

OPS: dict[str, IR | type[nn.Module]] = {
    **_BASE_OPS,
    **_SE_OPS,
    **{f"{name}_se": op._replace(squeeze_excite=True) for name, op in _SE_OPS.items()},
    **_OTHER_OPS,
}


def is_stride_of(op: str, stride: Any) -> bool:
    """Whether the op takes this stride: inverted residuals enlarge too, and without a kernel they cannot shrink."""
    known = OPS[op]
    if not isinstance(known, IR):
        return stride in ((1, 2, 4) if known is Skip else (1, 2))
    if isinstance(stride, tuple):
        return len(stride) == 2 and all(each in (-1, -2, -4) for each in stride)
    return stride in (1, -1, -2, -4) or (known.kernel_size > 1 and stride in (2, 4))


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of a network share: see InvertedResidual."""

    norm: NormFactory
    width_divisor: int = 1
    skip_norm: bool = False
    skip_relu: bool = False


def make_block(block: Block, in_channels: int, out_channels: int, settings: BlockSettings) -> nn.Module:
    """Build a block; out_channels is its width after scaling."""
    op = OPS[block.op]
    if isinstance(op, IR):
        expansion = block.expansion if op.expansion is None else op.expansion
        options = {**vars(settings), **op._asdict(), "expansion": expansion}
        return InvertedResidual(in_channels, out_channels, stride=block.stride, **options)
    options = {"expansion": block.expansion} if op is ShiftBlock5x5 else {}
    return op(in_channels, out_channels, stride=block.stride, norm=settings.norm, **options)
