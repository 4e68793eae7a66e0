"""Active learning for deep detection networks: mine where neighbouring places disagree about what is there.

Source: Aghdam et al., Active Learning for Deep Detection Neural Networks (2019), section 4, in the form of YMIR's
executors: maps of 640 pixels, windows of 9, regions of 32.

Letters: K classes, C channels (anchors of all levels), S the side of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

MAP_SIZE = 640
WINDOW = 9
REGION = 32
_TINY = 1e-30  # keeps a logarithm finite where its factor is 0


def aldd_scores(levels: Sequence[Tensor], *, map_size: int = MAP_SIZE) -> list[float]:
    """The score of each class: mean over the picture's regions of their highest uncertainty.

    Args:
        levels: logits [K, A, h, w], one map a pyramid level, each covering the whole picture.
        map_size: S, the side to which all maps are enlarged, bilinearly.
    """
    size = (map_size, map_size)
    enlarged = [F.interpolate(level.float(), size, mode="bilinear", align_corners=False) for level in levels]
    probabilities = torch.cat(enlarged, dim=1).sigmoid_()  # [K, C, S, S]
    return [_region_mean(uncertainty_map(of_class)) for of_class in probabilities]


def uncertainty_map(probabilities: Tensor, *, window: int = WINDOW) -> Tensor:
    """U = sum over channels of E(mean of p) - mean of E(p), the means over a window about each pixel.

    E is the binary entropy in nats. U is 0 where all pixels of a window agree, and large where sure ones contradict
    one another. At the border the mean is over the part of the window within the map.

    Args:
        probabilities: [C, S, S].

    Returns:
        [S, S].
    """
    # The mean is linear, so the second term needs it once, not for each channel.
    entropies = binary_entropy(probabilities).sum(dim=0, keepdim=True)
    means = window_mean(torch.cat([probabilities, entropies]), window)
    return binary_entropy(means[:-1]).sum(dim=0) - means[-1]


def binary_entropy(p: Tensor) -> Tensor:
    """- p log p - (1 - p) log (1 - p) in nats; 0 at 0 and 1, and where rounding has led beyond them."""
    p, rest = p.clamp(min=_TINY), (1.0 - p).clamp_(min=_TINY)
    terms = p.log().mul_(p)  # in place: these maps are large
    return terms.add_(rest.log().mul_(rest)).neg_()


def window_mean(maps: Tensor, window: int) -> Tensor:
    """Mean over a square window about each pixel of maps [C, S, S], as far as it lies within; ``window`` is odd."""
    before = window // 2
    counts = F.pad(torch.ones(maps.shape[-1], dtype=maps.dtype, device=maps.device), (before, before))
    counts = _neighbour_sums(counts, window, dim=0)
    sums = F.pad(maps, (before,) * 4)
    sums = _neighbour_sums(_neighbour_sums(sums, window, dim=2), window, dim=1)
    return sums / (counts[:, None] * counts)


def _neighbour_sums(values: Tensor, count: int, *, dim: int) -> Tensor:
    """Sums of ``count`` values that follow one another: of two, of two such sums, and so on, not one by one.

    That is a fifth of the time of torch's pooling on a CPU for windows of 9.
    """
    length = values.shape[dim] - count + 1
    pairs, width, start = values, 1, 0
    total = None
    while width <= count:
        if count & width:
            part = pairs.narrow(dim, start, length)
            total = part if total is None else total + part
            start += width
        rest = pairs.shape[dim] - width
        width *= 2
        if width <= count:
            pairs = pairs.narrow(dim, 0, rest) + pairs.narrow(dim, width // 2, rest)
    return total


def weighted_sum(scores: Sequence[float], weights: Sequence[float]) -> float:
    """The total of the classes' scores, each times its weight; a class beyond the weights counts 1."""
    padded = [*weights, *[1.0] * (len(scores) - len(weights))]
    return float(sum(weight * score for weight, score in zip(padded, scores, strict=False)))


def _region_mean(uncertainty: Tensor) -> float:
    return float(F.max_pool2d(uncertainty[None], REGION, stride=REGION).double().mean())
