"""The part of the network whose work the shape of the images decides alone, and which can therefore be captured."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class TrunkOutputs(NamedTuple):
    """Feature maps and what the RPN head says about them, one entry a pyramid level, finest first."""

    features: tuple[Tensor, ...]  # L x [N, C, H_l, W_l]
    logits: tuple[Tensor, ...]  # L x [N, A, H_l, W_l] objectness, or [N, A K, H_l, W_l] of a dense detector
    deltas: tuple[Tensor, ...]  # L x [N, 4 A, H_l, W_l] box codes


def run_trunk(backbone: nn.Module, rpn_head: nn.Module, images: Tensor) -> TrunkOutputs:
    """Run a backbone [N, 3, H, W] -> pyramid, and a head that gives (logits, box codes) of each level of it."""
    features = tuple(backbone(images))
    logits, deltas = rpn_head(features)
    return TrunkOutputs(features, tuple(logits), tuple(deltas))


class Trunk(nn.Module):
    """Backbone, pyramid and RPN head as one module from a tensor to tensors.

    It shares the parameters of the network that it was made from and is no part of it, so that names in checkpoints
    stay, and weights that are loaded later count here too.

    Args:
        backbone, rpn_head: see `run_trunk`.
    """

    def __init__(self, backbone: nn.Module, rpn_head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn_head = rpn_head

    def forward(self, images: Tensor) -> TrunkOutputs:
        """Run both parts on images [N, 3, H, W]."""
        return run_trunk(self.backbone, self.rpn_head, images)
