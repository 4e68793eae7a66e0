"""Optimiser and schedule from the config."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.solver.eager import EagerAdam, EagerAdamW, EagerSGD
from maskrcnn_benchmark.solver.lr_scheduler import WarmupMultiStepLR

FUSED_DEVICES = ("cuda", "cpu")
OPTIMIZERS = ("SGD", "Adam", "AdamW")
Groups = list[dict[str, Any]]  # as torch.optim takes them


def group_parameters(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    weight_decay: float,
    bias_lr_factor: float,
    bias_weight_decay: float,
) -> Groups:
    """Sort the trainable parameters into one optimiser group per set of hyperparameters.

    A parameter whose name holds ``bias`` gets the rate ``lr * bias_lr_factor`` and its own weight decay, as published.
    One group per parameter, as the references have, would make one kernel launch of each.

    Returns:
        Groups in order of first appearance, each with the keys params, lr and weight_decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        key = (lr * bias_lr_factor, bias_weight_decay) if "bias" in name else (lr, weight_decay)
        groups.setdefault(key, []).append(parameter)
    return [{"params": params, "lr": key[0], "weight_decay": key[1]} for key, params in groups.items()]


def make_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SOLVER.OPTIMIZER over the trainable parameters; SGD with the fused kernel that SOLVER.FUSED_SGD names.

    Raises:
        ValueError: the model has nothing to train, the kernel is not there, or a name is not known.
    """
    solver = cfg.SOLVER
    groups = group_parameters(
        model.named_parameters(),
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        bias_weight_decay=solver.WEIGHT_DECAY_BIAS,
    )
    if not groups:
        raise ValueError("no parameter of the model is trainable; lower MODEL.BACKBONE.FREEZE_CONV_BODY_AT")
    if solver.OPTIMIZER not in OPTIMIZERS:
        raise ValueError(f"SOLVER.OPTIMIZER must be one of {', '.join(OPTIMIZERS)}, got {solver.OPTIMIZER!r}")
    if solver.OPTIMIZER != "SGD":
        kind = {"Adam": EagerAdam, "AdamW": EagerAdamW}[solver.OPTIMIZER]
        parameters = [parameter for group in groups for parameter in group["params"]]
        return kind(groups, lr=solver.BASE_LR, betas=tuple(solver.BETAS), fused=_can_fuse(parameters))
    if solver.FUSED_SGD not in _FUSED_SGD:
        raise ValueError(f"SOLVER.FUSED_SGD must be one of {', '.join(_FUSED_SGD)}, got {solver.FUSED_SGD!r}")
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = _FUSED_SGD[solver.FUSED_SGD](groups, parameters, lr=solver.BASE_LR, momentum=solver.MOMENTUM)
    if solver.MOMENTUM > 0:
        # The fused kernel makes its buffers from uninitialised memory in its first step, and that stays in them when a
        # loss scaler has the step skipped (torch 2.13). From zeros the first step gives the same numbers.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _torch_sgd(groups: Groups, parameters: Sequence[nn.Parameter], **options: float) -> torch.optim.Optimizer:
    """PyTorch's SGD, fused where the device has that kernel."""
    return EagerSGD(groups, fused=_can_fuse(parameters), **options)


def _can_fuse(parameters: Iterable[nn.Parameter]) -> bool:
    return all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)


def _apex_sgd(groups: Groups, parameters: Sequence[nn.Parameter], **options: float) -> torch.optim.Optimizer:
    """NVIDIA apex's SGD. With float16 the host waits once a step, to read whether the loss scaler skips it."""
    if any(parameter.device.type != "cuda" for parameter in parameters):
        raise ValueError("SOLVER.FUSED_SGD is apex, whose kernel needs CUDA; set it to torch")
    try:
        from apex.optimizers import FusedSGD

        return FusedSGD(groups, **options)
    except (ImportError, RuntimeError) as error:  # not installed, or without its CUDA extensions
        raise ValueError(
            f"SOLVER.FUSED_SGD is apex, but it cannot be used here ({error}); build apex with its CUDA extensions, or "
            "set SOLVER.FUSED_SGD to torch"
        ) from error


_FUSED_SGD = {"torch": _torch_sgd, "apex": _apex_sgd}


def make_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> WarmupMultiStepLR:
    """The published schedule: warm-up, then steps of SOLVER.GAMMA at SOLVER.STEPS, counted in optimiser steps."""
    return WarmupMultiStepLR(
        optimizer,
        cfg.SOLVER.STEPS,
        cfg.SOLVER.GAMMA,
        warmup_factor=cfg.SOLVER.WARMUP_FACTOR,
        warmup_iters=cfg.SOLVER.WARMUP_ITERS,
        warmup_method=cfg.SOLVER.WARMUP_METHOD,
    )
