"""Published face of the matching rule on a given IoU matrix; the network itself uses the fused `ops.match_boxes`."""

from __future__ import annotations

from torch import Tensor

from maskrcnn_benchmark.ops.match import BELOW_LOW, BETWEEN


class Matcher:
    """Assigns to each predicted box the ground truth it overlaps most.

    Args:
        high_threshold: lowest quality of a match.
        low_threshold: below it a box is background.
        allow_low_quality_matches: boxes with the best quality of some ground truth keep their best match.

    Raises:
        ValueError: when the thresholds are out of order.
    """

    BELOW_LOW_THRESHOLD = BELOW_LOW
    BETWEEN_THRESHOLDS = BETWEEN

    def __init__(self, high_threshold: float, low_threshold: float, allow_low_quality_matches: bool = False) -> None:
        if low_threshold > high_threshold:
            raise ValueError(f"low_threshold ({low_threshold}) must not exceed high_threshold ({high_threshold})")
        self.high_threshold = high_threshold
        self.low_threshold = low_threshold
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> Tensor:
        """Return [P] int64 ground-truth indices, -1 for background and -2 between the thresholds.

        Args:
            match_quality_matrix: [G, P] IoU; without ground truth everything is background.
        """
        if match_quality_matrix.shape[0] == 0:
            return match_quality_matrix.new_full((match_quality_matrix.shape[1],), BELOW_LOW, dtype=int)
        best, index = match_quality_matrix.max(dim=0)
        matches = index.masked_fill(best < self.high_threshold, BETWEEN).masked_fill(
            best < self.low_threshold, BELOW_LOW
        )
        if self.allow_low_quality_matches:
            best_of_gt = match_quality_matrix.amax(dim=1, keepdim=True)
            matches = index.where((match_quality_matrix == best_of_gt).any(dim=0), matches)
        return matches
