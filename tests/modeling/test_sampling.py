from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.balanced_positive_negative_sampler import BalancedPositiveNegativeSampler
from maskrcnn_benchmark.modeling.sampling import sample_slots


@pytest.mark.parametrize("num_positives", [0, 3, 40])
@pytest.mark.parametrize("num_negatives", [0, 5, 500])
@pytest.mark.parametrize("fraction", [0.25, 1.0])
def test_numbers_and_membership(num_positives, num_negatives, fraction):
    labels = torch.cat(
        [torch.full((num_positives,), 3), torch.zeros(num_negatives, dtype=torch.long), torch.full((20,), -1)]
    )
    labels = torch.stack([labels[torch.randperm(len(labels))] for _ in range(2)])
    index, valid = sample_slots(labels, num_samples=64, positive_fraction=fraction)
    assert index.shape == (2, min(64, labels.shape[1]))
    positives = min(num_positives, int(64 * fraction))
    for row in range(2):
        chosen = index[row][valid[row]]
        assert len(chosen.unique()) == len(chosen)
        assert (labels[row][chosen] > 0).sum() == positives
        assert (labels[row][chosen] == 0).sum() == min(num_negatives, 64 - positives)
        assert (labels[row][chosen] >= 0).all()


def test_choice_is_uniform():
    labels = torch.tensor([[1] * 8 + [0] * 8])
    counts = torch.zeros(16)
    for _ in range(2000):
        index, valid = sample_slots(labels, num_samples=8, positive_fraction=0.25)
        counts[index[valid]] += 1
    # 2 of 8 positives and 6 of 8 negatives: binomial standard deviations 19.4
    assert (counts[:8] - 500).abs().max() < 100
    assert (counts[8:] - 1500).abs().max() < 100


def test_face_returns_masks_per_image():
    sampler = BalancedPositiveNegativeSampler(4, 0.5)
    positives, negatives = sampler([torch.tensor([1, 1, 1, 0, 0, 0, -1]), torch.tensor([0, -1])])
    assert [int(p.sum()) for p in positives] == [2, 0]
    assert [int(n.sum()) for n in negatives] == [2, 1]
    assert positives[0].dtype == torch.bool
    assert not positives[0][3:].any()
