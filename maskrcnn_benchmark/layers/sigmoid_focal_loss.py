"""Focal loss on independent sigmoids."""

from __future__ import annotations

from torch import Tensor, nn

from maskrcnn_benchmark import ops


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
        return ops.sigmoid_focal_loss(logits, targets, gamma=self.gamma, alpha=self.alpha)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in print(module)."""
        return f"gamma={self.gamma}, alpha={self.alpha}"
