"""Published path of ``test``."""

from maskrcnn_benchmark.apps.test import run_tests as test

__all__ = ["test"]
