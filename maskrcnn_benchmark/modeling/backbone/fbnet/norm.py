"""Batch norm for batches that have empty slots."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SlotBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that takes its statistics from the filled slots alone.

    A batch of regions has a fixed number of slots, of which some may be empty. In training these must count neither for
    the batch's statistics nor for the running ones; leaving them out by a mask needs no word from the device.
    """

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise x [R, C, H, W]; the result has x's dtype.

        Args:
            valid: [R] bool, the filled slots; None for all. Of no filled slot the running statistics learn nothing.
        """
        if valid is None or not self.training:
            return super().forward(x)
        values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        weights = valid.to(values.dtype).reshape(-1, 1, 1, 1)
        count = weights.sum() * (x.shape[2] * x.shape[3])
        mean = (values * weights).sum((0, 2, 3)) / count.clamp(min=1)
        variance = ((values - _column(mean)).square() * weights).sum((0, 2, 3)) / count.clamp(min=1)
        self._track(mean, variance, count)
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(_column(self.bias - mean * scale), values, _column(scale)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics towards mean [C] and the unbiased variance, by momentum."""
        self.num_batches_tracked.add_(1)
        step = (count > 0).to(self.running_mean.dtype) * self.momentum
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), step)


def _column(x: Tensor) -> Tensor:  # [C] -> [1, C, 1, 1]
    return x.reshape(1, -1, 1, 1)
