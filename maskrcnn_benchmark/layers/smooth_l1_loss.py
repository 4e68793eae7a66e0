"""Smooth L1 loss with its corner at beta."""

from __future__ import annotations

import torch
from torch import Tensor


def smooth_l1_loss(input: Tensor, target: Tensor, beta: float = 1.0 / 9, size_average: bool = True) -> Tensor:
    """Return the mean (size_average) or the sum of the element-wise smooth L1 loss, as a 0-d tensor.

    An element d = |input - target| costs d^2 / (2 beta) below beta and d - beta / 2 above.
    Source: Girshick, Fast R-CNN (2015), equation 3, with a movable corner.
    """
    distance = (input - target).abs()
    loss = torch.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)
    return loss.mean() if size_average else loss.sum()
