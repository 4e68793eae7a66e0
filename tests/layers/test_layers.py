from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark import layers


def test_smooth_l1_by_hand():
    input, target = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([0.05, -0.5, 2.0])
    # beta 0.1: 0.05^2 / 0.2, 0.5 - 0.05, 2 - 0.05
    expected = 0.0125 + 0.45 + 1.95
    assert layers.smooth_l1_loss(input, target, beta=0.1, size_average=False).item() == pytest.approx(expected)
    assert layers.smooth_l1_loss(input, target, beta=0.1).item() == pytest.approx(expected / 3)


def test_focal_loss_by_formula():
    torch.manual_seed(0)
    logits = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 1, 2, 3, 4, 5, -1, 0, 5, 1, 0, -1])
    loss = layers.SigmoidFocalLoss(gamma=2.0, alpha=0.25)(logits, targets)
    expected = 0.0
    for row, target in zip(logits.sigmoid().tolist(), targets.tolist(), strict=True):
        for k, p in enumerate(row, 1):
            if target >= 0:
                pt, weight = (p, 0.25) if k == target else (1 - p, 0.75)
                expected -= weight * (1 - pt) ** 2 * torch.tensor(pt, dtype=torch.float64).log().item()
    assert loss.item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda x: layers.SigmoidFocalLoss(2.0, 0.25)(x, targets), logits)


def test_frozen_batch_norm_has_no_parameters_and_keeps_dtype():
    norm = layers.FrozenBatchNorm2d(3)
    assert not list(norm.parameters())
    norm.running_var.fill_(4.0)
    norm.bias.fill_(1.0)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(norm(x), x / 2 + 1)
    assert norm(x.bfloat16()).dtype == torch.bfloat16
