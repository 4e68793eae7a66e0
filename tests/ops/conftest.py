"""The op tests run with the compiled kernels, and once more without them (test_library.py starts that run)."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

import pytest

from tests.ops.cuda_emulation.build import Emulation, build, find_compiler, sources_of

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


@pytest.fixture(scope="session")
def emulated(tmp_path_factory) -> Callable[[str], Emulation]:
    """``emulated(op)``: the CUDA kernels of csrc/``op``, run on the CPU (tests/ops/cuda_emulation); built once."""
    if find_compiler() is None or sys.platform == "win32":
        pytest.skip("needs a C++ compiler on a POSIX system, to emulate CUDA kernels")
    folder = tmp_path_factory.mktemp("cuda_emulation")

    @functools.cache
    def emulate(op: str) -> Emulation | RuntimeError:
        try:
            return Emulation(build(sources_of(op), folder, op))
        except RuntimeError as error:  # is kept too: not every test shall wait for it
            return error

    def get(op: str) -> Emulation:
        emulation = emulate(op)
        if isinstance(emulation, RuntimeError):
            pytest.fail(str(emulation), pytrace=False)
        return emulation

    return get
