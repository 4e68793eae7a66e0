"""What all tests share: which of them run, how many threads they take, and where outside data lies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
TEST_DATA_VARIABLE = "MASKRCNN_TEST_DATA"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run the tests marked slow and extras")


def pytest_configure(config: pytest.Config) -> None:
    # A user's own settings must not change what a test sees.
    for name in ("DATA_DIR", "DTYPE", "NHWC", "HYBRID", "GPU", "CONFIG", "RESULTS", "TORCH_DETECTRON_ENV_MODULE"):
        os.environ.pop(name, None)
    torch.set_num_threads(min(2, os.cpu_count() or 1))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    run_all = config.getoption("--all")
    has_cuda = torch.cuda.is_available()
    for item in items:
        if item.get_closest_marker("gpu") and not has_cuda:
            item.add_marker(pytest.mark.skip(reason="gpu: no CUDA device is available"))
        for marker in ("slow", "extras"):
            if item.get_closest_marker(marker) and not run_all:
                item.add_marker(pytest.mark.skip(reason=f"{marker}: runs with --all"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def external_data() -> Callable[[str], Path]:
    """``external_data(name)``: the folder ``name`` below $MASKRCNN_TEST_DATA, or a skip that says what is missing."""

    def find(name: str) -> Path:
        root = os.environ.get(TEST_DATA_VARIABLE, "")
        if not root:
            pytest.skip(f"{TEST_DATA_VARIABLE} is not set: it names the folder that holds {name}")
        folder = Path(root) / name
        if not folder.exists():
            pytest.skip(f"{folder} does not exist ({TEST_DATA_VARIABLE} is {root})")
        return folder

    return find
