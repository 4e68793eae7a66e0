"""What processes must have in common; how real nodes fare is in tests/e2e/test_two_nodes.py."""

from __future__ import annotations

import logging

import pytest

from maskrcnn_benchmark.apps.nodes import tell_of_own_folders, validate_agreement
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.utils import comm


@pytest.fixture
def three(monkeypatch):
    """A group of three processes on as many nodes, of which this is the first; ``others`` changes what it hears."""
    others = []

    def all_gather(own):
        return [own, *(change(own) for change in others)]

    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    monkeypatch.setattr(comm, "get_local_world_size", lambda: 1)
    monkeypatch.setattr(comm, "all_gather", all_gather)
    return others


def test_a_config_that_differs_is_named_on_every_process(three):
    three[:] = [dict, lambda own: {**own, "SOLVER.BASE_LR": "0.5"}]
    with pytest.raises(
        ValueError, match=r"SOLVER.BASE_LR is 0.001 in process 0, but 0.5 in process 2; start every node"
    ):
        validate_agreement(defaults)


@pytest.mark.parametrize("name", ["NNODES", "the version of maskrcnn_benchmark", "the version of torch"])
def test_other_programs_and_numbers_of_nodes_are_named(three, name):
    three[:] = [lambda own: {**own, name: "another"}]
    with pytest.raises(ValueError, match=f"{name} is .*, but another in process 1"):
        validate_agreement(defaults)


def test_a_key_that_only_one_process_knows_is_named(three):
    three[:] = [lambda own: {key: value for key, value in own.items() if key != "SEED"}]
    with pytest.raises(ValueError, match="SEED is 0 in process 0, but None in process 1"):
        validate_agreement(defaults)


def test_a_node_may_have_its_own_paths_and_workers(three):
    own = defaults.clone()
    own.merge_from_list(["OUTPUT_DIR", "x", "DATASETS.DATA_DIR", "y", "DATALOADER.NUM_WORKERS", 9, "MODEL.WEIGHT", "w"])
    heard = []
    three[:] = [lambda said: heard.append(said) or said]
    validate_agreement(defaults)
    validate_agreement(own)
    assert heard[0] == heard[1]
    assert "SOLVER.IMS_PER_BATCH" in heard[0]


@pytest.mark.parametrize("shared", [True, False])
def test_folders_of_their_own_are_told_of(three, tmp_path, caplog, monkeypatch, shared):
    three[:] = [lambda sees: sees, lambda sees: sees if shared or sees is None else False]
    monkeypatch.setattr(comm, "broadcast", lambda data: data)
    monkeypatch.setattr(logging.getLogger("maskrcnn_benchmark"), "propagate", True)
    tell_of_own_folders(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    if shared:
        assert caplog.messages == []
    else:
        (line,) = caplog.messages
        assert "is not one folder on all nodes (not for process 2)" in line


def test_one_process_asks_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(comm, "all_gather", lambda _: pytest.fail("there is nobody"))
    validate_agreement(defaults)
    tell_of_own_folders(str(tmp_path))
