"""What whoever runs an exported file has to know: written into it, and beside it as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from maskrcnn_benchmark.export.program import InputShape

VERSION = 1
KEY = "maskrcnn_benchmark"  # of the one entry of an ONNX file's metadata_props, and of a .pt2 file's extra files


@dataclass(frozen=True)
class Metadata:
    """Description of one exported file.

    Attributes:
        shape: of the inputs.
        outputs: names of the outputs, in order.
        categories: id in result files and name of each label, from label 1 on.
        min_size, max_size: pictures are scaled to this shorter side, unless the longer one passes max_size (0: no
            limit), as in training.
        pixel_mean, pixel_std: of the network's channels, in units of 0 to 255.
        channel_order: of the network's channels, BGR or RGB; pixels go in as BGR all the same.
        precision: fp32, fp16 or int8.
        mask_threshold: a pixel belongs to an object when its probability is above.
    """

    shape: InputShape
    outputs: Sequence[str]
    categories: Sequence[dict[str, Any]]
    min_size: int
    max_size: int
    pixel_mean: Sequence[float]
    pixel_std: Sequence[float]
    channel_order: str
    precision: str = "fp32"
    mask_threshold: float = 0.5

    def to_json(self) -> str:
        """Return it as JSON, with `version` and the fields of the shape beside the others."""
        content = asdict(self)
        shape = content.pop("shape")
        return json.dumps({"version": VERSION, **shape, **content}, indent=1)
