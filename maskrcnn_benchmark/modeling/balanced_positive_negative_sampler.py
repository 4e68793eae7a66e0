"""Published face of `sampling.sample_slots`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.sampling import sample_slots


class BalancedPositiveNegativeSampler:
    """Sample a fixed number of boxes of each image with a largest share of positives."""

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    def __call__(self, matched_idxs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return, for each image, bool masks [P] of the chosen positives (label >= 1) and negatives (label 0).

        Args:
            matched_idxs: one [P] tensor of labels an image; negative values are ignored.
        """
        positives, negatives = [], []
        for labels in matched_idxs:
            indices, valid = sample_slots(
                labels[None], num_samples=self.batch_size_per_image, positive_fraction=self.positive_fraction
            )
            chosen = torch.zeros_like(labels, dtype=torch.bool)
            chosen[indices[valid]] = True
            positives.append(chosen & (labels >= 1))
            negatives.append(chosen & (labels == 0))
        return positives, negatives
