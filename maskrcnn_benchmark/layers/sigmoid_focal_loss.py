"""Focal loss on independent sigmoids."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SigmoidFocalLoss(nn.Module):
    """Sum of the focal loss over boxes and classes. Source: Lin et al., Focal Loss (2017), equation 5.

    Args:
        gamma: focusing exponent.
        alpha: weight of the positives; negatives weigh 1 - alpha.
    """

    def __init__(self, gamma: float, alpha: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the summed loss (0-d).

        Args:
            logits: [R, K] class logits, without a background column.
            targets: [R] integers; 0 is background, 1..K a class, negative values are ignored.
        """
        classes = torch.arange(1, logits.shape[1] + 1, device=logits.device)
        positive = (targets[:, None] == classes).to(logits.dtype)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, positive, reduction="none")
        error = torch.where(positive > 0, (-logits).sigmoid(), logits.sigmoid())
        weight = torch.where(positive > 0, self.alpha, 1 - self.alpha)
        counted = (targets >= 0)[:, None]
        return torch.where(counted, weight * error**self.gamma * cross_entropy, 0.0).sum()

    def extra_repr(self) -> str:
        """Show the hyper-parameters in print(module)."""
        return f"gamma={self.gamma}, alpha={self.alpha}"
