"""Warm-up followed by steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

WARMUP_METHODS = ("constant", "linear", "mlperf_linear")


class WarmupMultiStepLR(LRScheduler):
    """Learning rate that warms up, then shrinks by ``gamma`` at each milestone.

    With ``it`` the number of steps taken and ``base`` the rate of a group:

    - constant: ``base * warmup_factor`` during warm-up;
    - linear: ``base * (warmup_factor * (1 - a) + a)`` with ``a = it / warmup_iters``;
    - mlperf_linear: ``base - warmup_factor * (warmup_iters - it)``: the factor is a slope in rate per step, the same
      for every group. Where that would fall below 0 the rate is 0 (the references then walk uphill).

    After warm-up, and on top of it, ``gamma ** (number of milestones <= it)``.

    Args:
        optimizer: its groups' ``lr`` are the base rates.
        milestones: increasing step numbers.
        gamma: factor of each milestone.
        warmup_factor: see above.
        warmup_iters: length of the warm-up in steps; 0 for none.
        warmup_method: constant, linear or mlperf_linear.
        last_epoch: number of the last step, -1 at the start.

    Raises:
        ValueError: the milestones do not increase, or the method is unknown.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        warmup_factor: float = 1.0 / 3,
        warmup_iters: int = 500,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        if list(milestones) != sorted(milestones):
            raise ValueError(f"SOLVER.STEPS must increase, got {tuple(milestones)}")
        if warmup_method not in WARMUP_METHODS:
            raise ValueError(f"SOLVER.WARMUP_METHOD must be one of {', '.join(WARMUP_METHODS)}, got {warmup_method!r}")
        self.milestones = tuple(milestones)
        self.gamma = gamma
        self.warmup_factor = warmup_factor
        self.warmup_iters = warmup_iters
        self.warmup_method = warmup_method
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Rate of each group at step ``last_epoch``."""
        decay = self.gamma ** bisect_right(self.milestones, self.last_epoch)
        return [self._warmed_up(base_lr) * decay for base_lr in self.base_lrs]

    def _warmed_up(self, base_lr: float) -> float:
        if self.last_epoch >= self.warmup_iters:
            return base_lr
        if self.warmup_method == "constant":
            return base_lr * self.warmup_factor
        if self.warmup_method == "linear":
            alpha = self.last_epoch / self.warmup_iters
            return base_lr * (self.warmup_factor * (1 - alpha) + alpha)
        return max(0.0, base_lr - self.warmup_factor * (self.warmup_iters - self.last_epoch))

    def state_dict(self) -> dict[str, Any]:
        """The position; the shape of the schedule belongs to the config."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to the position of a saved schedule, ours or a published one; milestones and rates stay the config's."""
        self.last_epoch = int(state_dict["last_epoch"])
        self._step_count = self.last_epoch + 1
        self._set_rates()

    def reshape(self, milestones: Sequence[int], warmup_iters: int) -> None:
        """Go on, from the present position, with another shape of the schedule.

        Args:
            milestones, warmup_iters: as for the class; milestones that lie behind count as passed.
        """
        self.milestones, self.warmup_iters = tuple(milestones), warmup_iters
        self._set_rates()

    def _set_rates(self) -> None:
        rates = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = rates
