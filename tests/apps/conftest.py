"""What the tests of the applications share."""

from __future__ import annotations

import logging

import pytest
import torch


@pytest.fixture
def one_thread():
    """Tiny networks are slower on two threads, much slower where the cores are busy."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def clean_logger():
    """Takes down what `setup_logger` put up in the test."""
    yield
    logger = logging.getLogger("maskrcnn_benchmark")
    for handler in [each for each in logger.handlers if getattr(each, "made_by_setup_logger", False)]:
        logger.removeHandler(handler)
    logger.propagate = True
