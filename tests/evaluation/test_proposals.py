"""Average recall of proposals against a slow twin."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn_benchmark.evaluation.proposals import best_one_to_one_ious


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def _slow_twin(gt_boxes: np.ndarray, boxes: np.ndarray) -> list[float]:
    """Repeatedly: every free ground truth names its best free proposal; the best covered one takes its own."""
    free_gts, free_boxes, result = set(range(len(gt_boxes))), set(range(len(boxes))), [0.0] * len(gt_boxes)
    while free_gts and free_boxes:
        best = {g: max((_iou(gt_boxes[g], boxes[r]), r) for r in free_boxes) for g in free_gts}
        g = max(best, key=lambda gt: best[gt][0])
        result[g], taken = best[g]
        free_gts.remove(g)
        free_boxes.remove(taken)
    return result


@pytest.mark.parametrize(("num_gts", "num_boxes"), [(5, 12), (7, 3), (1, 1), (0, 4), (4, 0)])
def test_one_to_one_matching(num_gts: int, num_boxes: int) -> None:
    rng = np.random.default_rng(num_gts * 100 + num_boxes)
    gt_boxes = np.concatenate([rng.uniform(0, 30, (num_gts, 2)), rng.uniform(5, 40, (num_gts, 2))], axis=1)
    boxes = np.concatenate([rng.uniform(0, 30, (num_boxes, 2)), rng.uniform(5, 40, (num_boxes, 2))], axis=1)
    np.testing.assert_allclose(best_one_to_one_ious(gt_boxes, boxes), _slow_twin(gt_boxes, boxes))
