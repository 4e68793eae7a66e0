"""Entropy of scores and of masks: mine what the network is unsure of."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

NOTHING_FOUND = -10.0
"""Score of a picture without detections, below every other."""


def entropy_score(scores: np.ndarray) -> float:
    """- sum p log2 p over the scores p [R] of one picture's detections; -10 for none.

    Source: YMIR's executors; the measure is Shannon's, as Joshi et al., Multi-class active learning for image
    classification (2009), section 3, use it. A score of 0.37 counts most, one of 0 or 1 nothing, and many unsure
    detections count more than one.
    """
    if len(scores) == 0:
        return NOTHING_FOUND
    # Sorted: the order of the detections must not reach the last bit.
    return float(-np.sum(np.sort(_times_log2(np.asarray(scores, dtype=np.float64)))))


def mask_entropy_score(masks: np.ndarray, boxes: np.ndarray, *, image_size: tuple[int, int], map_size: int) -> float:
    """Entropy of the mean mask map m, - sum m log2 m + (1 - m) log2 (1 - m) over its pixels; -10 for no detection.

    Source: the measure "apis" of YMIR's segmentation executor, whose maps are those of its prototypes; here each mask
    is laid into a map of the whole picture, of one size for all pictures, so that large ones do not count more.

    Args:
        masks: float [R, M, M] probabilities within the boxes.
        boxes: [R, 4] edges in pixels.
        image_size: (height, width) of the picture.
        map_size: side of the map.
    """
    if len(masks) == 0:
        return NOTHING_FOUND
    mean = mean_mask_map(torch.as_tensor(masks), torch.as_tensor(boxes), image_size=image_size, map_size=map_size)
    mean = mean.double().numpy()
    return float(-np.sum(_times_log2(mean) + _times_log2(1.0 - mean)))


def mean_mask_map(masks: Tensor, boxes: Tensor, *, image_size: tuple[int, int], map_size: int) -> Tensor:
    """Mean over the detections of their mask probabilities in the picture: float64 [map_size, map_size].

    A mask is sampled bilinearly at the centres of the map's cells and is 0 outside of its box.
    """
    height, width = image_size
    centres = (torch.arange(map_size, dtype=torch.float64) + 0.5) / map_size
    x1, y1, x2, y2 = boxes.double().unbind(dim=1)
    # -1 .. 1 from edge to edge of each box, as grid_sample without align_corners has it.
    across = 2 * (centres * width - x1[:, None]) / (x2 - x1).clamp(min=1e-6)[:, None] - 1
    down = 2 * (centres * height - y1[:, None]) / (y2 - y1).clamp(min=1e-6)[:, None] - 1
    total = torch.zeros(map_size, map_size, dtype=torch.float64)
    for mask, column, row in zip(masks.double(), across, down, strict=True):
        inside_row, inside_column = row.abs() <= 1, column.abs() <= 1
        row, column = row[inside_row], column[inside_column]
        if not len(row) or not len(column):
            continue
        grid = torch.stack(torch.broadcast_tensors(column[None, :], row[:, None]), dim=-1)
        sampled = F.grid_sample(mask[None, None], grid[None], padding_mode="border", align_corners=False)[0, 0]
        total[inside_row.nonzero(), inside_column.nonzero()[:, 0]] += sampled
    return total / len(masks)


def _times_log2(p: np.ndarray) -> np.ndarray:
    """The product p log2 p, and its limit 0 at 0."""
    return p * np.log2(np.where(p > 0, p, 1.0))
