"""The op tests run with the compiled kernels, and once more without them (test_library.py starts that run)."""

from __future__ import annotations

import os
import sys

import pytest

WITHOUT_EXTENSION = os.environ.get("MASKRCNN_TESTS_WITHOUT_EXTENSION") == "1"

if WITHOUT_EXTENSION:
    sys.modules["maskrcnn_benchmark._C"] = None  # makes its import fail


@pytest.fixture(scope="session")
def without_extension() -> bool:
    """Whether this run hides the compiled kernels."""
    return WITHOUT_EXTENSION


@pytest.fixture
def threads():
    """``threads(n)`` sets the number of threads; the old one comes back after the test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
