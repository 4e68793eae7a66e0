"""Which tensors of a weights file go where in a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.utils.model_serialization import match_by_suffix, strip_wrapper_prefix

# Layers with one output (or a fixed number of them) a class; these may stem from another set of classes.
CLASS_LAYERS = ("cls_score.", "bbox_pred.", "mask_fcn_logits.", "kps_score_lowres.", "cls_logits.")
COMPUTED = ("anchor_generator.",)  # buffers that the config decides, never a file


@dataclass
class LoadReport:
    """What became of the names of a model and of a file."""

    loaded: list[str] = field(default_factory=list)  # names of the model that were filled
    left_out: list[str] = field(default_factory=list)  # class layers whose shape in the file differs
    missing: list[str] = field(default_factory=list)  # names of the model that the file lacks
    mismatched: list[str] = field(default_factory=list)  # other shapes that differ
    unused: list[str] = field(default_factory=list)  # names of the file that fill nothing

    def summary(self) -> str:
        """One line for the log."""
        text = f"{len(self.loaded)} tensors loaded, {len(self.left_out)} left out, {len(self.missing)} missing"
        text += f", {len(self.unused)} of the file unused" if self.unused else ""
        if self.left_out:
            text += f"; left out because their number of classes differs: {', '.join(self.left_out)}"
        if self.missing:
            text += f"; missing, so they keep their start values: {shorten(self.missing)}"
        return text


def shorten(names: Sequence[str], *, limit: int = 6) -> str:
    """The first names, and how many more there are."""
    text = ", ".join(names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"


def model_state(data: Mapping[str, Any], *, source: str) -> dict[str, Tensor]:
    """The state dict in the content of a file: its entry ``model``, or the file itself, without ``module.`` prefixes.

    Raises:
        ValueError: there is none; ``source`` is named.
    """
    state = data.get("model", data)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{source} holds no weights: neither an entry 'model' nor a plain dict of tensors")
    return strip_wrapper_prefix(state)


def fill_from_weights(model: nn.Module, loaded: Mapping[str, Tensor]) -> LoadReport:
    """Copy every loaded tensor that fits into ``model``, matching names as ``match_by_suffix`` does.

    Class layers of another number of classes are left out. When any other shape differs, or nothing fits, the model is
    left as it was: look at ``mismatched`` and ``loaded`` of the report.
    """
    own = model.state_dict()
    matched = match_by_suffix(own, loaded)
    report = LoadReport()
    fitting = {}
    for name, tensor in own.items():
        if name not in matched:
            if not any(part in name for part in COMPUTED):
                report.missing.append(name)
        elif loaded[matched[name]].shape == tensor.shape:
            fitting[name] = loaded[matched[name]]
        elif any(layer in name for layer in CLASS_LAYERS) and loaded[matched[name]].shape[1:] == tensor.shape[1:]:
            report.left_out.append(name)
        elif not any(part in name for part in COMPUTED):
            wrong, right = tuple(loaded[matched[name]].shape), tuple(tensor.shape)
            report.mismatched.append(f"{name} {wrong} instead of {right}")
    report.unused = sorted(set(loaded) - set(matched.values()))
    report.loaded = list(fitting)
    if fitting and not report.mismatched:
        model.load_state_dict(fitting, strict=False)
    return report
