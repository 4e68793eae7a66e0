"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from yacs.config import CfgNode

from tests.data.loader_checks import loader_cfg
from tests.data.tiny_coco import TinyCoco, write_tiny_coco


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests leave nothing in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def tiny(tmp_path: Path) -> TinyCoco:
    return write_tiny_coco(tmp_path / "tiny")


@pytest.fixture
def cfg(tiny: TinyCoco) -> CfgNode:
    """Small images and batches of ``tiny``, by the plain loader."""
    return loader_cfg(tiny)
