"""Fill a model from a state dict whose names differ by a prefix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

WRAPPER_PREFIX = "module."  # what DistributedDataParallel puts before every name


def strip_wrapper_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without the ``module.`` before each name; unchanged unless every name has it."""
    if not state or not all(name.startswith(WRAPPER_PREFIX) for name in state):
        return dict(state)
    return {name.removeprefix(WRAPPER_PREFIX): tensor for name, tensor in state.items()}


def match_by_suffix(model_names: Iterable[str], loaded_names: Iterable[str]) -> dict[str, str]:
    """Which loaded name fills which name of the model.

    A loaded name fits when it equals the model's name or ends it at a dot (``layer1.0.conv1.weight`` fits
    ``backbone.body.layer1.0.conv1.weight``); the longest one that fits wins.

    Returns:
        model name -> loaded name, for the model names that found one, in the model's order.
    """
    loaded = set(loaded_names)
    matched = {}
    for name in model_names:
        parts = name.split(".")
        # From the whole name to its last part: the first hit is the longest.
        suffixes = (".".join(parts[start:]) for start in range(len(parts)))
        found = next((suffix for suffix in suffixes if suffix in loaded), None)
        if found is not None:
            matched[name] = found
    return matched


def load_state_dict(model: nn.Module, loaded_state_dict: Mapping[str, Tensor]) -> None:
    """Copy into ``model`` every loaded tensor that finds a name there; the rest of the model keeps its values.

    Prefixes ``module.`` are dropped on both sides; names are matched as ``match_by_suffix`` says.

    Raises:
        ValueError: a tensor has another shape than the one it should fill.
    """
    own = model.state_dict()
    own_names = strip_wrapper_prefix({name: own[name] for name in own})
    loaded = strip_wrapper_prefix(loaded_state_dict)
    prefix = WRAPPER_PREFIX if own and list(own) != list(own_names) else ""
    matched = match_by_suffix(own_names, loaded)
    wrong = [
        f"{name} {tuple(loaded[source].shape)} instead of {tuple(own_names[name].shape)}"
        for name, source in matched.items()
        if loaded[source].shape != own_names[name].shape
    ]
    if wrong:
        raise ValueError(f"{len(wrong)} loaded tensors have another shape than the model's: {', '.join(wrong[:5])}")
    model.load_state_dict({prefix + name: loaded[source] for name, source in matched.items()}, strict=False)
