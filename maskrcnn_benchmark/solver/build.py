"""Optimiser and schedule from the config."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.solver.lr_scheduler import WarmupMultiStepLR

FUSED_DEVICES = ("cuda", "cpu")


def group_parameters(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    weight_decay: float,
    bias_lr_factor: float,
    bias_weight_decay: float,
) -> list[dict[str, object]]:
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


def make_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.SGD:
    """SGD with momentum over the trainable parameters, with the fused kernel where the device has one.

    Raises:
        ValueError: the model has nothing to train.
    """
    groups = group_parameters(
        model.named_parameters(),
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        bias_weight_decay=cfg.SOLVER.WEIGHT_DECAY_BIAS,
    )
    if not groups:
        raise ValueError("no parameter of the model is trainable; lower MODEL.BACKBONE.FREEZE_CONV_BODY_AT")
    fused = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in model.parameters() if p.requires_grad)
    optimizer = torch.optim.SGD(groups, lr=cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM, fused=fused)
    if cfg.SOLVER.MOMENTUM > 0:
        # The fused kernel makes its buffers from uninitialised memory in its first step, and that stays in them when a
        # loss scaler has the step skipped (torch 2.13). From zeros the first step gives the same numbers.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


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
