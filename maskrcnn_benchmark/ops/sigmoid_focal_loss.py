"""Focal loss on independent sigmoids, summed. Source: Lin et al., Focal Loss (2017), equation 5. R boxes, K classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.ops._checks import (
    FLOATING,
    accumulate_dtype,
    check_dtype,
    check_same_device,
    check_shape,
    check_value,
)
from maskrcnn_benchmark.ops._library import LIB, define_op

_OP = "sigmoid_focal_loss"


def sigmoid_focal_loss(
    logits: Tensor,  # [R, K]
    targets: Tensor,  # [R]
    *,
    gamma: float,
    alpha: float,
) -> Tensor:
    """The sum over boxes and classes of -w (1 - p)^gamma log(p), where p is the probability of what is true.

    Computed from logits without leaving the range of the numbers, in float32 (float64 for float64) whatever the logits'
    dtype. Nothing but the logits is kept for the backward pass.

    Args:
        logits: [R, K] without a background column; float32, float64, float16 or bfloat16.
        targets: [R] integers: 0 is background, 1 to K a class; rows below 0 are ignored.
        gamma: focusing exponent, 0 or more; 0 is weighted cross entropy.
        alpha: weight w of the true class; all others weigh 1 - alpha.

    Returns:
        0-d, float32 (float64 for float64). It does not depend on the number of threads.

    Raises:
        ValueError: shapes that do not fit together, or a negative gamma.
        TypeError: a dtype that is not named above.
    """
    return torch.ops.mrcnn.sigmoid_focal_loss(logits, targets.to(torch.int64), gamma, alpha)


def _check(logits: Tensor, targets: Tensor, gamma: float) -> None:
    check_shape(logits, _OP, "logits", ("R", "K"))
    check_dtype(logits, _OP, "logits", FLOATING)
    check_shape(targets, _OP, "targets", (logits.shape[0],))
    check_dtype(targets, _OP, "targets", (torch.int64,))
    check_same_device(_OP, logits=logits, targets=targets)
    check_value(gamma >= 0, _OP, f"gamma must be at least 0, got {gamma}")


def _margins(logits: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """How far each logit lies on the right side of 0, which are positive, and the weights; all [R, K]."""
    classes = torch.arange(1, logits.shape[1] + 1, device=targets.device)
    positive = targets[:, None] == classes
    values = logits.to(accumulate_dtype(logits.dtype))
    weights = torch.where(positive, alpha, torch.where(targets[:, None] >= 0, 1 - alpha, 0.0)).to(values.dtype)
    return torch.where(positive, values, -values), positive, weights


def sigmoid_focal_loss_reference(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    """The op ``mrcnn::sigmoid_focal_loss`` in plain PyTorch."""
    _check(logits, targets, gamma)
    margins, _, weights = _margins(logits, targets, alpha)
    losses = -weights * (-margins).sigmoid() ** gamma * F.logsigmoid(margins)
    return torch.where(weights == 0, 0.0, losses).sum()


def sigmoid_focal_loss_backward_reference(
    grad: Tensor, logits: Tensor, targets: Tensor, gamma: float, alpha: float
) -> Tensor:
    """The op ``mrcnn::sigmoid_focal_loss_backward`` in plain PyTorch: the gradient [R, K] in the logits' dtype."""
    margins, positive, weights = _margins(logits, targets, alpha)
    error = (-margins).sigmoid()
    slope = weights * error**gamma * (gamma * margins.sigmoid() * F.logsigmoid(margins) - error)
    slope = torch.where(weights == 0, 0.0, torch.where(positive, slope, -slope))
    return (grad * slope).to(logits.dtype)


_FORWARD = define_op(
    "sigmoid_focal_loss(Tensor logits, Tensor targets, float gamma, float alpha) -> Tensor",
    sigmoid_focal_loss_reference,
)
_BACKWARD = define_op(
    "sigmoid_focal_loss_backward(Tensor grad, Tensor logits, Tensor targets, float gamma, float alpha) -> Tensor",
    sigmoid_focal_loss_backward_reference,
)


@torch.library.register_fake(_FORWARD, lib=LIB)
def _fake_forward(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    _check(logits, targets, gamma)
    return logits.new_empty((), dtype=accumulate_dtype(logits.dtype))


@torch.library.register_fake(_BACKWARD, lib=LIB)
def _fake_backward(grad: Tensor, logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, targets, ctx.gamma, ctx.alpha = inputs
    ctx.save_for_backward(logits, targets)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    logits, targets = ctx.saved_tensors
    return torch.ops.mrcnn.sigmoid_focal_loss_backward(grad, logits, targets, ctx.gamma, ctx.alpha), None, None, None


torch.library.register_autograd(_FORWARD, _backward, setup_context=_setup_context, lib=LIB)
