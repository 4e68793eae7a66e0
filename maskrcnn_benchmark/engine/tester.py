"""Published path of ``test``."""

from maskrcnn_benchmark.apps.test import test as test
