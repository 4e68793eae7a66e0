"""Two nodes for real: the scripts on two hosts with a cable between them, killed, cut off, and back again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from tests.apps.tiny_run import CONFIG, DATA_KEYS, OPTIONS
from tests.data.tiny_coco import write_tiny_coco
from tests.e2e.network_namespaces import REPOSITORY, TwoHosts, finish, require_namespaces, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ITERATIONS = 60
RUN = {
    **OPTIONS, **DATA_KEYS, "SOLVER.MAX_ITER": ITERATIONS, "SOLVER.CHECKPOINT_PERIOD": 5, "SOLVER.STEPS": "(40,)",
    "SOLVER.LOG_PERIOD": 1, "DATALOADER.NUM_WORKERS": 1,
}  # fmt: skip
# Three images a batch: two processes cannot divide them and take two, one process takes all three.
ELASTIC = {"SOLVER.IMS_PER_BATCH": 3, "SOLVER.SCALE_TO_WORLD": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny_coco(tmp_path_factory.mktemp("data"))


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    require_namespaces()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with TwoHosts(tmp_path) as both:
        yield both


def words(data, **changes):
    keys = {**RUN, "DATASETS.CUSTOM": str(data.custom("tiny")), **changes}
    return [str(CONFIG), "--skip-test", *(str(word) for pair in keys.items() for word in pair)]


def run_here(data, results, *, processes, copy_of="", **changes):
    """The same run on this machine alone."""
    environment = {
        "PYTHON": sys.executable, "SKIP_SETUP": "1", "RESULTS": str(results), "GPU": str(processes),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(REPOSITORY / "scripts" / "train.sh"), *words(data, **changes)], env=os.environ | environment,
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    """The weights of two processes on this machine that nothing disturbs."""
    folder = tmp_path_factory.mktemp("here")
    run_here(data, folder, processes=2)
    return weights(folder)


def weights(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def assert_equal_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def iteration_of(results):
    log = results / "joblog.log"
    found = re.findall(r"  iter: (\d+)  ", log.read_text()) if log.exists() else []
    return int(found[-1]) if found else 0


def wait_until(results, iteration, *programs):
    wait_for(lambda: iteration_of(results) >= iteration, f"iteration {iteration}", programs=programs)


def log_of(results):
    return (results / "joblog.log").read_text()


def test_two_nodes_equal_two_processes(hosts, data, reference, tmp_path):
    """Each node with a folder of its own: node 0 has everything, the other its log."""
    folders = [tmp_path / "node0", tmp_path / "node1"]
    finish(*(hosts.start(node, words(data), folders[node], NNODES="2") for node in (0, 1)))
    assert_equal_bits(weights(folders[0]), reference)
    assert [path.name for path in folders[1].iterdir()] == ["joblog_node1.log"]
    assert "is not one folder on all nodes (not for process 1)" in log_of(folders[0])


def test_a_killed_process_costs_no_bit(hosts, data, reference, tmp_path):
    results = tmp_path / "shared"
    nodes = [hosts.start(node, words(data), results, NNODES="2") for node in (0, 1)]
    wait_until(results, 17, *nodes)
    (trainer,) = hosts.trainers(1)
    os.kill(trainer, signal.SIGKILL)
    finish(*nodes)
    assert_equal_bits(weights(results), reference)
    assert len(re.findall("Start training at iteration", log_of(results))) == 2
    assert "is not one folder" not in log_of(results)


def test_a_node_that_comes_back_costs_no_bit(hosts, data, reference, tmp_path):
    """The whole node is lost, its disk too, and with a fixed number of nodes the other one waits for it."""
    folders = [tmp_path / "node0", tmp_path / "node1", tmp_path / "node1_new"]
    first, second = (hosts.start(node, words(data), folders[node], NNODES="2") for node in (0, 1))
    wait_until(folders[0], 17, first, second)
    hosts.kill_host(1)
    finish(second, status=-signal.SIGKILL)
    again = hosts.start(1, words(data), folders[2], NNODES="2")
    finish(first, again)
    assert_equal_bits(weights(folders[0]), reference)


def test_a_node_goes_on_alone_by_the_rule(hosts, data, tmp_path):
    results = tmp_path / "node0"
    nodes = [
        hosts.start(
            node, words(data, **ELASTIC), tmp_path / f"node{node}", NNODES="1:2", RDZV_CONF="last_call_timeout=5"
        )
        for node in (0, 1)
    ]
    wait_until(results, 17, *nodes)
    hosts.kill_host(1)
    finish(nodes[0])
    said = re.search(
        r"1 process\(es\) with batches of 3 images go on from 2 with 2; iteration (\d+) is now iteration (\d+)",
        log_of(results),
    )
    before, after = map(int, said.groups())
    assert before % 8 == 0, "SOLVER.CHECKPOINT_PERIOD 5, scaled to batches of two"
    assert after == round(before * 2 / 3)

    # The same by hand: two processes up to that iteration, then one.
    here = tmp_path / "here"
    run_here(data, here, processes=2, **ELASTIC)
    for path in here.glob("model_*.pth"):
        if path.name != f"model_{before:07d}.pth":
            path.unlink()
    (here / "last_checkpoint").write_text(f"model_{before:07d}.pth")
    run_here(data, here, processes=1, **ELASTIC)
    assert_equal_bits(weights(results), weights(here))
    final = torch.load(results / "model_final.pth", weights_only=True)
    assert final["iteration"] == ITERATIONS
    assert final["progress"]["earlier"] == [[2, 2, before]]
