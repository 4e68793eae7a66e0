"""Losses and gradients that are not finite: the update is dropped where the weights are, and what happens is decided.

A weight that has become NaN stays NaN, so an update must be judged before it is made. On a GPU that happens without the
host, which learns of it when it next reads the losses; the weights are then still as good as they were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark.trainer")


class UpdateGuard:
    """Finds updates that are not finite, on all processes alike, and keeps them from the weights.

    A loss of any process counts, and after the exchange the gradients, which are then the same everywhere. With a loss
    scaler only the losses do: gradients that overflow float16 are what it is there for.

    Args:
        model: whose running statistics are put back after a forward pass that was not finite.
        keeps_on: drop only the update concerned. False: drop the later ones too, so that the weights are those of the
            faulty iteration when the host learns of it.

    Attributes:
        dropped: whether the last update was, 0-d float32 (1 or 0) on the device of the losses; None before the first.
    """

    def __init__(self, model: nn.Module, *, keeps_on: bool = False) -> None:
        self.keeps_on = keeps_on
        self.dropped: Tensor | None = None
        self._bad: Tensor | None = None
        norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
        self._statistics = [buffer for norm in norms for buffer in norm.buffers()]
        self._saved: list[Tensor] = []

    def before_forward(self) -> None:
        """A forward pass begins; the first one of an update is where running statistics go back to."""
        if not self._saved:
            self._saved = [buffer.clone() for buffer in self._statistics]

    def watch(self, total: Tensor) -> None:
        """Take the sum of the losses of a micro-batch, 0-d."""
        bad = ~total.detach().isfinite()
        self._bad = bad if self._bad is None else self._bad | bad

    def judge(self, gradients: Sequence[Tensor], *, scaled: bool) -> Tensor:
        """Whether the update must be dropped, 0-d bool; every process calls it, after the exchange of gradients.

        Args:
            gradients: of all parameters. Where the update must be dropped and they are scaled, one of them becomes NaN,
                which the loss scaler finds.
            scaled: a loss scaler is on.
        """
        assert self._bad is not None
        bad = comm.reduce_tensor(self._bad.float(), average=False) > 0
        if gradients and not scaled:
            bad = bad | ~_are_finite(gradients).to(bad.device)
        if not self.keeps_on and self.dropped is not None:
            bad = bad | (self.dropped > 0)
        if scaled and gradients:
            min(gradients, key=Tensor.numel).masked_fill_(bad, float("nan"))
        for buffer, before in zip(self._statistics, self._saved, strict=True):
            buffer.copy_(torch.where(bad, before, buffer))
        self._bad, self._saved, self.dropped = None, [], bad.float()
        return bad

    def update(self, optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
        """Step the optimiser unless ``bad``. A fused one decides on the device; for others the host reads it.

        An optimiser on a GPU that cannot decide there steps all the same, unless the run keeps on: without being read
        the flag cannot stop it, and a run that ends anyway is not worth a wait in each step.
        """
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.found_inf = bad.float()  # as torch's GradScaler tells it
            try:
                optimizer.step()
            finally:
                del optimizer.found_inf
        elif not (bad.device.type == "cpu" or self.keeps_on) or not bool(bad):
            optimizer.step()

    def is_noticed(self) -> bool:
        """Whether the last update was dropped, as far as the host knows without waiting: on a GPU it does not."""
        return self.dropped is not None and self.dropped.device.type == "cpu" and bool(self.dropped)


def _are_finite(gradients: Sequence[Tensor]) -> Tensor:
    """Whether all numbers of all gradients are finite, 0-d bool on their device."""
    if gradients[0].device.type == "cpu":
        # NaN and infinity are the extremes of their tensor; on a CPU found in a tenth of the time of that norm.
        extremes = [extreme for gradient in gradients for extreme in torch.aminmax(gradient)]
        return torch.stack(extremes).isfinite().all()
    return nn.utils.get_total_norm(gradients, float("inf")).isfinite()  # a few kernels for all of them


@dataclass(frozen=True)
class Failure:
    """What was not finite.

    Args:
        iteration: when.
        rank: the process where it was found.
        what: such as "loss_mask is nan", for the beginning of a sentence.
        indices: data set indices of the images of that process.
        image_ids: the data set's own ids of these images, as text.
    """

    iteration: int
    rank: int
    what: str
    indices: tuple[int, ...]
    image_ids: tuple[str, ...]

    def __str__(self) -> str:
        images = ", ".join(self.image_ids)
        return f"{self.what} at iteration {self.iteration} (process {self.rank}, image ids {images})"


KeepBatch = Callable[[Failure], str]  # keeps what is needed to look into a failure; gives a remark for the message


class Response:
    """What a run does about failures; this one ends it.

    Args:
        keep: called on every process for the first failure, for a debug bundle.
    """

    keeps_on = False

    def __init__(self, keep: KeepBatch | None = None) -> None:
        self.keep = keep

    def count(self, *, dropped: bool) -> None:
        """An update was made, or dropped."""

    def __call__(self, failures: Sequence[Failure]) -> None:
        """Respond to failures, in the order of their iterations; called with the same ones on every process.

        Raises:
            FloatingPointError: the run has to end.
        """
        first = min(failures, key=lambda failure: failure.iteration)
        raise FloatingPointError(
            f"{first}; the last checkpoint is from before it; a lower SOLVER.BASE_LR or a longer warm-up is the usual "
            f"remedy, and SOLVER.NONFINITE skip goes on without such updates{self._kept(first)}"
        )

    def _kept(self, failure: Failure) -> str:
        remark = self.keep(failure) if self.keep is not None else ""
        return f"; {remark}" if remark else ""

    def state_dict(self) -> dict[str, Any]:
        """Entries for a checkpoint: what a resumed run must know."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back, from among others."""


class Skipping(Response):
    """Goes on without the updates that were dropped, unless there are too many one after the other.

    Args:
        limit: the number of dropped updates in a row that ends the run.
        keep: see Response.
    """

    keeps_on = True

    def __init__(self, limit: int, keep: KeepBatch | None = None) -> None:
        super().__init__(keep)
        self.limit = limit
        self.total = self.in_a_row = self.longest = 0

    def count(self, *, dropped: bool) -> None:
        """An update was made, or dropped."""
        self.total += dropped
        self.in_a_row = self.in_a_row + 1 if dropped else 0
        self.longest = max(self.longest, self.in_a_row)

    def __call__(self, failures: Sequence[Failure]) -> None:
        """Log each failure; end the run at the limit."""
        for failure in sorted(failures, key=lambda failure: failure.iteration):
            logger.warning("%s; its update is skipped, %d so far%s", failure, self.total, self._kept(failure))
        if self.longest >= self.limit:
            raise FloatingPointError(
                f"{max(failures, key=lambda failure: failure.iteration)}; with it {self.longest} updates in a row were "
                "skipped, which is SOLVER.NONFINITE_LIMIT; go on from the last checkpoint with a lower SOLVER.BASE_LR"
            )

    def state_dict(self) -> dict[str, Any]:
        """How many updates were dropped, and how many of the last ones in a row."""
        return {"skips": {"total": self.total, "in_a_row": self.in_a_row}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        skips = state.get("skips", {})
        self.total, self.in_a_row = skips.get("total", 0), skips.get("in_a_row", 0)


def make_response(nonfinite: str, limit: int, keep: KeepBatch | None = None) -> Response:
    """The response that SOLVER.NONFINITE ("stop", "skip") asks for."""
    return Skipping(limit, keep) if nonfinite == "skip" else Response(keep)
