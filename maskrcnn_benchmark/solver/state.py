"""Saved momentum back into an optimiser that groups its parameters in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], parameters: Sequence[nn.Parameter]
) -> None:
    """Load what ``optimizer.state_dict()`` once gave, whether its groups are the same or one per parameter.

    The state of each parameter (its momentum) is taken from ``state``; rates, momentum factor and weight decay stay
    those of ``optimizer``, because the config decides them.

    Args:
        optimizer: the optimiser to fill.
        state: saved state; groups that differ from ours (one a parameter, as published) follow ``parameters``.
        parameters: the model's trainable parameters in the model's order.

    Raises:
        ValueError: the number of parameters or a shape differs, or it is the state of another kind of optimiser.
    """
    if any(("betas" in saved) != ("betas" in optimizer.param_groups[0]) for saved in state["param_groups"]):
        kind = type(optimizer).__name__.removeprefix("Eager")
        raise ValueError(f"the saved optimizer is of another kind than {kind}; set SOLVER.OPTIMIZER to what it was")
    own_order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    saved_sizes = [len(group["params"]) for group in state["param_groups"]]
    if sum(saved_sizes) != len(own_order):
        raise ValueError(f"the saved optimizer has {sum(saved_sizes)} parameters, this one {len(own_order)}")
    same_groups = saved_sizes == [len(group["params"]) for group in optimizer.param_groups]
    saved_order = own_order if same_groups else list(parameters)
    saved_ids = [index for group in state["param_groups"] for index in group["params"]]
    position = {id(parameter): index for index, parameter in enumerate(own_order)}
    own = optimizer.state_dict()
    per_parameter: dict[int, dict[str, Any]] = dict(own["state"])  # kept where the saved state has nothing
    for saved_id, parameter in zip(saved_ids, saved_order, strict=True):
        entry = state["state"].get(saved_id, {})
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.dim() > 0 and value.shape != parameter.shape:
                raise ValueError(f"saved {name} has shape {tuple(value.shape)}, its parameter {tuple(parameter.shape)}")
        if entry:
            per_parameter[position[id(parameter)]] = dict(entry)
    optimizer.load_state_dict({"state": per_parameter, "param_groups": own["param_groups"]})
