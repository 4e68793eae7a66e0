"""One training step: forward, backward, update."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_benchmark.engine.nonfinite import UpdateGuard
from maskrcnn_benchmark.engine.precision import Precision


class TrainStep:
    """Forward and backward of one micro-batch; after every ``accumulate_steps`` of them an update.

    An update whose losses or gradients are not finite changes no weight; the schedule counts it.

    Args:
        model: gives a dict of 0-d losses; wrapped for several processes or not.
        optimizer: steps once an update.
        scheduler: steps once an update, after the optimiser.
        precision: number format and loss scaler.
        accumulate_steps: micro-batches an update; losses are divided by it, so gradients are means.
        max_grad_norm: gradients of a larger L2 norm over all parameters are scaled down to it; 0 for no limit.
        skip_nonfinite: the updates after one that was not finite are made; otherwise none is.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        precision: Precision,
        *,
        accumulate_steps: int = 1,
        max_grad_norm: float = 0.0,
        skip_nonfinite: bool = False,
    ) -> None:
        if accumulate_steps < 1:
            raise ValueError(f"SOLVER.ACCUMULATE_STEPS must be 1 or more, got {accumulate_steps}")
        # The schedule counts updates that are dropped, as published for those that the scaler skips until it fits.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before")
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.precision = precision
        self.accumulate_steps = accumulate_steps
        self.max_grad_norm = max_grad_norm
        self.guard = UpdateGuard(model, keeps_on=skip_nonfinite)
        self.trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def ends_update(self, iteration: int) -> bool:
        """Whether the weights change in this iteration (counted from 1): in each ``accumulate_steps``-th."""
        return iteration % self.accumulate_steps == 0

    def dropped(self, iteration: int) -> Tensor | None:
        """Whether the update after an iteration that was just run was dropped, 0-d; None where none was due."""
        return self.guard.dropped if self.ends_update(iteration) else None

    def __call__(self, images: Any, targets: Any, *, iteration: int) -> dict[str, Tensor]:
        """Run one iteration, counted from 1.

        Returns:
            The model's losses, detached, on its device.
        """
        updates = self.ends_update(iteration)
        with self._gradient_exchange(updates):
            self.guard.before_forward()
            with self.precision.autocast():
                losses = self.model(images, targets)
            total = sum(losses.values())
            self.guard.watch(total)
            self.precision.scaler.scale(total / self.accumulate_steps).backward()
        if updates:
            self._update()
        return {name: loss.detach() for name, loss in losses.items()}

    def _gradient_exchange(self, updates: bool) -> contextlib.AbstractContextManager[Any]:
        # Processes need one another's gradients only when the weights change.
        if isinstance(self.model, DistributedDataParallel) and not updates:
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _update(self) -> None:
        scaler = self.precision.scaler
        gradients = [parameter.grad for parameter in self.trainable if parameter.grad is not None]
        dropped = self.guard.judge(gradients, scaled=scaler.is_enabled())
        if self.max_grad_norm > 0:
            scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trainable, self.max_grad_norm)
        if scaler.is_enabled():
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.guard.update(self.optimizer, dropped)
        self.scheduler.step()
        self.clear_gradients()

    def clear_gradients(self) -> None:
        """Get ready for the next update's first backward pass."""
        if self.accumulate_steps == 1:
            self.model.zero_grad(set_to_none=True)
            return
        # A captured backward pass gives its gradients in the same memory each time. Autograd takes the first ones of a
        # parameter as they are, so the next micro-batch would overwrite them; to zeros in memory of our own it adds.
        for parameter in self.model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.model.zero_grad(set_to_none=False)
