"""Random choice of a fixed number of positives and negatives, for a whole batch and without host syncs."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_slots(labels: Tensor, *, num_samples: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Choose up to num_samples candidates of each image, at most num_samples * positive_fraction of them positive.

    Negatives fill the places that positives leave. The choice is uniform and uses the default generator of the device.

    Args:
        labels: [N, P] integers; positive above 0, negative 0, ignored below 0.
        num_samples: S' candidates wanted for each image.
        positive_fraction: largest share of positives.

    Returns:
        indices: [N, S] into the candidates, S = min(S', P); of each image the positives first.
        valid: [N, S] bool; False marks an empty slot.
    """
    num_slots = min(num_samples, labels.shape[1])
    num_positives = min(int(num_samples * positive_fraction), num_slots)
    priority = torch.rand(labels.shape, device=labels.device)
    keys = torch.where(labels == 0, priority, -1.0)
    positive_priority = torch.where(labels > 0, priority, -1.0)
    values, indices = positive_priority.topk(num_positives, dim=1)
    # chosen positives come before every negative; a place without a positive keeps the key it had
    keys.scatter_(1, indices, torch.where(values >= 0, values + 1.0, keys.gather(1, indices)))
    values, indices = keys.topk(num_slots, dim=1)
    return indices, values >= 0
