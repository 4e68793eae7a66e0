"""The published path of ``evaluate``; the code is in :mod:`maskrcnn_benchmark.evaluation`."""

from maskrcnn_benchmark.evaluation import evaluate as evaluate
