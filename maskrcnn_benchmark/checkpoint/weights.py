"""Which tensors of a weights file go where in a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.utils.model_serialization import match_by_suffix, strip_wrapper_prefix

# Layers with one output (or a fixed number of them) a class, and that output's axis in the weight; they may stem from
# another set of classes.
CLASS_LAYERS = {
    "cls_score.": 0,
    "bbox_pred.": 0,
    "mask_fcn_logits.": 0,
    "cls_logits.": 0,
    "kps_score_lowres.": 1,  # a transposed convolution
}
COMPUTED = ("anchor_generator.",)  # buffers that the config decides, never a file
# A deformable 3x3 convolution lies one level deeper than the plain one, from whose weights it starts.
DEFORMABLE, ORDINARY = ".conv2.conv.", ".conv2."

_BLOCK = re.compile(r"(?:^|.*\.)layer([1-4])\.(\d+)\.(?:conv|bn)\d\..+")
_STATISTICS = re.compile(r"(?:^|.*\.)(?:stem\.bn1|layer[1-4]\.\d+\.bn1)\.running_mean")
_NORM = re.compile(r"(?:^|.*\.)(?:stem\.bn1|layer[1-4]\.\d+\.bn1)\.weight")


@dataclass
class LoadReport:
    """What became of the names of a model and of a file."""

    loaded: list[str] = field(default_factory=list)  # names of the model that were filled
    left_out: list[str] = field(default_factory=list)  # class layers whose shape in the file differs
    missing: list[str] = field(default_factory=list)  # names of the model that the file lacks
    mismatched: list[str] = field(default_factory=list)  # other shapes that differ
    unused: list[str] = field(default_factory=list)  # names of the file that fill nothing
    fault: str = ""  # why the file is one of another architecture

    def summary(self) -> str:
        """One line for the log."""
        text = f"{len(self.loaded)} tensors loaded, {len(self.left_out)} left out, {len(self.missing)} missing"
        text += f", {len(self.unused)} of the file unused" if self.unused else ""
        if self.left_out:
            text += f"; left out because their number of classes differs: {', '.join(self.left_out)}"
        if self.missing:
            text += f"; missing, so they keep their start values: {shorten(self.missing)}"
        return text

    def table(self) -> str:
        """Counts for each part of the model, and what of the file is not used."""
        columns = {"loaded": self.loaded, "left out": self.left_out, "missing": self.missing}
        counts = {title: Counter(map(part_of, names)) for title, names in columns.items()}
        parts = list(dict.fromkeys(part_of(name) for names in columns.values() for name in names))
        width = max(len("part"), *map(len, parts)) if parts else len("part")
        lines = [f"{'part':<{width}}" + "".join(f"{title:>10}" for title in columns)]
        for part in sorted(parts):
            lines.append(f"{part:<{width}}" + "".join(f"{counts[title][part]:>10}" for title in columns))
        if self.unused:
            lines.append(f"not used from the file: {shorten(self.unused)}")
        return "\n".join(lines)


def part_of(name: str) -> str:
    """The part of the network that a name belongs to: backbone.body, rpn.head, roi_heads.box.predictor."""
    parts = name.split(".")[:-1]
    return ".".join(parts[: 3 if parts[:1] == ["roi_heads"] else 2]) or name


def shorten(names: Sequence[str], *, limit: int = 6) -> str:
    """The first names, and how many more there are."""
    text = ", ".join(names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"


def model_state(data: Mapping[str, Any], *, source: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint: its entry ``model``, or the file itself, without ``module.`` prefixes.

    Raises:
        ValueError: there is none; ``source`` is named.
    """
    state = data.get("model", data)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{source} holds no weights: neither an entry 'model' nor a plain dict of tensors")
    return strip_wrapper_prefix(state)


def load_whole(model: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Fill every tensor of a model.

    Args:
        model: not wrapped.
        state: name -> tensor.
        path: where it is from.

    Raises:
        ValueError: names or shapes differ; they and ``path`` are named, and nothing has changed.
    """
    own = model.state_dict()
    differing = [
        *(f"{name} is missing" for name in own if name not in state),
        *(f"{name} is unknown" for name in state if name not in own),
        *(
            f"{name} has shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ),
    ]
    if differing:
        raise ValueError(f"{path} is a checkpoint of another model: {shorten(differing)}")
    model.load_state_dict(state)


def fill_from_weights(model: nn.Module, loaded: Mapping[str, Tensor]) -> LoadReport:
    """Copy every loaded tensor that fits into ``model``, matching names as ``match_by_suffix`` does.

    Class layers of another number of classes are left out. When any other shape differs, the backbone is another, or
    nothing fits, the model is left as it was: look at ``fault``, ``mismatched`` and ``loaded`` of the report.
    """
    own = model.state_dict()
    matched = _match(own, loaded)
    report = LoadReport(fault=architecture_fault(own, loaded))
    fitting = {}
    for name, tensor in own.items():
        if any(part in name for part in COMPUTED):
            continue
        if name not in matched:
            report.missing.append(name)
        elif loaded[matched[name]].shape == tensor.shape:
            fitting[name] = loaded[matched[name]]
        elif _differs_in_classes(name, loaded[matched[name]], tensor):
            report.left_out.append(name)
        else:
            wrong, right = tuple(loaded[matched[name]].shape), tuple(tensor.shape)
            report.mismatched.append(f"{name} {wrong} instead of {right}")
    used = set(matched.values())
    report.unused = sorted(name for name in loaded if name not in used and not any(part in name for part in COMPUTED))
    report.loaded = list(fitting)
    if fitting and not report.mismatched and not report.fault:
        model.load_state_dict(fitting, strict=False)
    return report


def architecture_fault(own_names: Iterable[str], loaded_names: Iterable[str]) -> str:
    """Why the backbone of a file cannot be the model's, as the end of a sentence; "" where nothing speaks against it.

    Compared are the blocks in each stage that both have, and whether the normalisation has statistics (batch norm) or
    not (group norm).
    """
    own_names, loaded_names = list(own_names), list(loaded_names)
    own, loaded = _blocks(own_names), _blocks(loaded_names)
    common = sorted(own.keys() & loaded.keys())
    if any(own[stage] != loaded[stage] for stage in common):
        counts = [", ".join(str(blocks[stage]) for stage in common) for blocks in (loaded, own)]
        stages = ", ".join(f"layer{stage}" for stage in common)
        return (
            f"it has {counts[0]} blocks in {stages}, the model {counts[1]}; set MODEL.BACKBONE.CONV_BODY to its depth"
        )
    if common and any(map(_NORM.fullmatch, own_names)) and any(map(_NORM.fullmatch, loaded_names)):
        statistics = [any(map(_STATISTICS.fullmatch, names)) for names in (loaded_names, own_names)]
        if statistics[0] != statistics[1]:
            norms = ["batch norm" if present else "group norm" for present in statistics]
            return f"its backbone has {norms[0]}, the model's {norms[1]}; set MODEL.RESNETS.TRANS_FUNC and STEM_FUNC"
    return ""


def _match(own: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> dict[str, str]:
    """Model name -> loaded name; a deformable convolution that is not in the file takes the ordinary one."""
    matched = match_by_suffix(own, loaded)
    plain = {name: name.replace(DEFORMABLE, ORDINARY) for name in own if DEFORMABLE in name and name not in matched}
    found = match_by_suffix(plain.values(), loaded)
    return matched | {name: found[other] for name, other in plain.items() if other in found}


def _differs_in_classes(name: str, loaded: Tensor, own: Tensor) -> bool:
    """Whether this is a class layer whose shapes differ in the number of classes alone."""
    axis = next((axis for layer, axis in CLASS_LAYERS.items() if layer in name), None)
    if axis is None or loaded.dim() != own.dim():
        return False
    axis = min(axis, own.dim() - 1)  # a bias has one axis
    shapes = [[size for index, size in enumerate(tensor.shape) if index != axis] for tensor in (loaded, own)]
    return shapes[0] == shapes[1]


def _blocks(names: Iterable[str]) -> dict[int, int]:
    """Stage (1 to 4) -> number of its residual blocks."""
    blocks: dict[int, int] = {}
    for name in names:
        if match := _BLOCK.fullmatch(name):
            stage, block = int(match.group(1)), int(match.group(2))
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    return blocks
