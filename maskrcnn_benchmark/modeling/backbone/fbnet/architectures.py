"""The published architectures, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Stride = int | tuple[int, int]  # negative values enlarge the map by that factor


class Block(NamedTuple):
    """One block of a stage, before widths are scaled."""

    op: str  # a key of ops.OPS
    expansion: float  # inner width, relative to the input; some ops bring their own
    channels: int
    stride: Stride


class First(NamedTuple):
    """The convolution on the image."""

    channels: int
    stride: int
    kernel_size: int = 3


@dataclass(frozen=True)
class Architecture:
    """Stages, and which of them make up which part of the detector.

    Args:
        first: what comes before the stages.
        stages: the blocks of each stage.
        parts: backbone, rpn, bbox, mask, kpts, or head for all region heads without stages of their own -> stages.
        last_channels: width of a 1x1 convolution at the end of a region head, before it is scaled; 0 for none.
        rpn_stride: stride of the anchors, where it is not the trunk's.
    """

    first: First
    stages: tuple[tuple[Block, ...], ...]
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    last_channels: int = 0
    rpn_stride: int | None = None

    def blocks_of(self, stages: Sequence[int]) -> dict[str, Block]:
        """Return the blocks of some stages, in ascending order, under their published names, xif<stage>_<block>."""
        return {f"xif{i}_{j}": block for i in sorted(set(stages)) for j, block in enumerate(self.stages[i])}

    def trunk_blocks(self) -> dict[str, Block]:
        """Return the blocks of the part backbone, or without it of all stages but the last."""
        return self.blocks_of(self.parts.get("backbone", range(len(self.stages) - 1)))


def total_stride(blocks: Iterable[Block]) -> tuple[float, float]:
    """Return by how much blocks one after the other shrink a map, (vertically, horizontally)."""
    total = [1.0, 1.0]
    for block in blocks:
        both = block.stride if isinstance(block.stride, tuple) else (block.stride, block.stride)
        total = [each * (s if s > 0 else -1 / s) for each, s in zip(total, both, strict=True)]
    return total[0], total[1]


Group = tuple[str, float, int, int, Stride]  # op, expansion, channels, repeats, stride of the first one


def repeat_blocks(op: str, expansion: float, channels: int, repeats: int, stride: Stride) -> tuple[Block, ...]:
    """Return `repeats` equal blocks, of which the first alone is strided."""
    return tuple(Block(op, expansion, channels, 1 if i else stride) for i in range(repeats))


def _stages(*stages: tuple[Group, ...]) -> tuple[tuple[Block, ...], ...]:
    return tuple(tuple(block for group in stage for block in repeat_blocks(*group)) for stage in stages)


_TRUNK = (0, 1, 2, 3)

ARCHITECTURES: Mapping[str, Architecture] = {
    "default": Architecture(
        First(32, 2),
        _stages(
            (("ir_k3", 1, 16, 1, 1),),
            (("ir_k3", 6, 24, 2, 2),),
            (("ir_k3", 6, 32, 3, 2),),
            (("ir_k3", 6, 64, 4, 2), ("ir_k3", 6, 96, 3, 1)),
            (("ir_k3", 4, 160, 1, 2), ("ir_k3", 6, 160, 2, 1), ("ir_k3", 6, 240, 1, 1)),
            (("ir_k3", 6, 96, 3, 1),),
            (("ir_k3", 4, 160, 1, 1), ("ir_k3", 6, 160, 3, 1), ("ir_k3", 3, 80, 1, -2)),
        ),
        {"backbone": _TRUNK, "bbox": (4,), "rpn": (5,), "mask": (6,)},
    ),
    "xirb16d_dsmask": Architecture(
        First(16, 2),
        _stages(
            (("ir_k3", 1, 16, 1, 1),),
            (("ir_k3", 6, 32, 2, 2),),
            (("ir_k3", 6, 48, 3, 2),),
            (("ir_k3", 6, 96, 4, 2), ("ir_k3", 6, 128, 3, 1)),
            (("ir_k3", 4, 128, 1, 2), ("ir_k3", 6, 128, 2, 1), ("ir_k3", 6, 160, 1, 1)),
            (
                ("ir_k3", 4, 128, 1, 2),
                ("ir_k3", 6, 128, 2, 1),
                ("ir_k3", 6, 128, 1, -2),
                ("ir_k3", 3, 64, 1, -2),
            ),
            (("ir_k3", 6, 128, 3, 1),),
        ),
        {"backbone": _TRUNK, "bbox": (4,), "mask": (5,), "rpn": (6,)},
    ),
    "mobilenet_v2": Architecture(
        First(32, 2),
        _stages(
            (("ir_k3", 1, 16, 1, 1),),
            (("ir_k3", 6, 24, 2, 2),),
            (("ir_k3", 6, 32, 3, 2),),
            (("ir_k3", 6, 64, 4, 2), ("ir_k3", 6, 96, 3, 1)),
            (("ir_k3", 6, 160, 3, 1), ("ir_k3", 6, 320, 1, 1)),
        ),
        {"backbone": _TRUNK, "bbox": (4,)},
    ),
    "cham_v1a": Architecture(
        First(32, 2),
        _stages(
            (("ir_k3", 1, 24, 1, 1),),
            (("ir_k7", 4, 48, 2, 2),),
            (("ir_k3", 7, 64, 5, 2),),
            (("ir_k5", 12, 56, 7, 2), ("ir_k3", 8, 88, 5, 1)),
            (("ir_k3", 7, 152, 4, 2), ("ir_k3", 10, 104, 1, 1)),
            (("ir_k3", 8, 88, 3, 1),),
        ),
        {"backbone": _TRUNK, "bbox": (4,), "rpn": (5,)},
    ),
    "cham_v2": Architecture(
        First(32, 2),
        _stages(
            (("ir_k3", 1, 24, 1, 1),),
            (("ir_k5", 8, 32, 4, 2),),
            (("ir_k7", 5, 48, 6, 2),),
            (("ir_k5", 9, 56, 3, 2), ("ir_k3", 6, 56, 6, 1)),
            (("ir_k3", 2, 160, 6, 2), ("ir_k3", 6, 112, 1, 1)),
            (("ir_k3", 6, 56, 1, 1),),
        ),
        {"backbone": _TRUNK, "bbox": (4,), "rpn": (5,)},
    ),
}
