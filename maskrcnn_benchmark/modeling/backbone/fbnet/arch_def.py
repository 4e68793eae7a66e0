"""Architectures that users write as JSON in MODEL.FBNET.ARCH_DEF, in the published form.

{"block_op_type": [[op of each block of stage 0], ...],
 "block_cfg": {"first": [channels, stride, kernel], "stages": [[[expansion, channels, repeats, stride], ...], ...],
               "last": [channels, scale], "backbone": [stages], "rpn": [...], "bbox": [...], "mask": [...],
               "kpts": [...], "head": [...]},
 "rpn_stride": 16}
"""

from __future__ import annotations

import json
from typing import Any

from maskrcnn_benchmark.modeling.backbone.fbnet.architectures import (
    ARCHITECTURES,
    Architecture,
    Block,
    First,
    repeat_blocks,
)
from maskrcnn_benchmark.modeling.backbone.fbnet.ops import OPS, is_stride_of

PARTS = ("backbone", "rpn", "bbox", "mask", "kpts", "head")


def find_architecture(name: str, definition: str = "") -> Architecture:
    """Return the architecture of this name.

    Args:
        name: a published name, or any other with a definition.
        definition: JSON, see above; for a published name it has to say the same.

    Raises:
        ValueError: the name is not known, or the definition is wrong; in one sentence.
    """
    known = ARCHITECTURES.get(name)
    if definition:
        parsed = parse_architecture(definition)
        if known is not None and parsed != known:
            raise ValueError(
                f"MODEL.FBNET.ARCH_DEF differs from the published architecture {name!r}; "
                "give yours another name in MODEL.FBNET.ARCH"
            )
        return parsed
    if known is None:
        raise ValueError(
            f"MODEL.FBNET.ARCH is {name!r}, which is none of {', '.join(ARCHITECTURES)}; "
            "define it in MODEL.FBNET.ARCH_DEF"
        )
    return known


def parse_architecture(definition: str) -> Architecture:
    """Read an architecture from JSON.

    Raises:
        ValueError: naming what is wrong.
    """
    try:
        content = json.loads(definition)
    except json.JSONDecodeError as error:
        raise ValueError(f"MODEL.FBNET.ARCH_DEF is not JSON: {error}") from error
    config = content.get("block_cfg") if isinstance(content, dict) else None
    _require(isinstance(config, dict), "must be an object with block_op_type and block_cfg")
    first, last = config.get("first"), config.get("last", [0, 0.0])
    _require(_are_numbers(first, 2) or _are_numbers(first, 3), f"first must be [channels, stride], not {first}")
    _require(_are_numbers(last, 2), f"last must be [channels, scale], not {last}")
    ops, groups = content.get("block_op_type"), config.get("stages")
    both = isinstance(ops, list) and isinstance(groups, list) and len(ops) == len(groups) > 0
    _require(both, "block_op_type and stages must be lists with an entry for each stage")
    stages = tuple(_parse_stage(i, *pair) for i, pair in enumerate(zip(ops, groups, strict=True)))
    return Architecture(
        First(*first),
        stages,
        {part: _parse_part(part, config[part], len(stages)) for part in PARTS if config.get(part)},
        last[0],
        content.get("rpn_stride", config.get("rpn_stride")),
    )


def _require(fits: bool, message: str) -> None:
    if not fits:
        raise ValueError(f"MODEL.FBNET.ARCH_DEF: {message}")


def _are_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(each) in (int, float) for each in value)


def _parse_stage(index: int, ops: Any, groups: Any) -> tuple[Block, ...]:
    """Read the blocks of a stage from the op of each and from groups of equal ones."""
    _require(isinstance(groups, list), f"stage {index} must be a list of [expansion, channels, repeats, stride]")
    blocks: list[Block] = []
    for group in groups:
        fits = isinstance(group, list) and len(group) == 4 and _are_numbers(group[:3], 3)
        fits = fits and group[0] > 0 and all(type(each) is int and each > 0 for each in group[1:3])
        _require(fits, f"stage {index} has {group}, which is not [expansion, channels, repeats, stride]")
        stride = tuple(group[3]) if isinstance(group[3], list) else group[3]
        blocks += repeat_blocks("", *group[:3], stride)
    fits = isinstance(ops, list) and len(ops) == len(blocks)
    _require(fits, f"block_op_type must name an op for each of the {len(blocks)} blocks of stage {index}")
    for op, block in zip(ops, blocks, strict=True):
        _require(op in OPS, f"stage {index} has the unknown op {op!r}; known: {', '.join(sorted(OPS))}")
        _require(is_stride_of(op, block.stride), f"stage {index}: {op} cannot have the stride {block.stride}")
    return tuple(block._replace(op=op) for op, block in zip(ops, blocks, strict=True))


def _parse_part(name: str, stages: Any, num_stages: int) -> tuple[int, ...]:
    fits = isinstance(stages, list) and all(type(i) is int and 0 <= i < num_stages for i in stages)
    _require(fits, f"{name} must list stages from 0 to {num_stages - 1}, not {stages}")
    return tuple(stages)
