"""Two nodes for real: the scripts on two hosts with a cable between them, killed, cut off, and back again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.apps.tiny_run import CONFIG, DATA_KEYS, OPTIONS
from tests.data.tiny_coco import write_tiny_coco
from tests.e2e.network_namespaces import REPOSITORY, SUBNET, TwoHosts, finish, require_namespaces, wait_for
from tests.test_slurm import Slurm

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


def words(data, *, script="train.sh", **changes):
    config = data.root / "tiny.yaml"  # train.sh draws pictures after the demo's own
    shutil.copy(CONFIG, config)
    keys = {**RUN, "DATASETS.CUSTOM": str(data.custom("tiny")), **changes}
    flags = ["--skip-test"] if script == "train.sh" else []
    return [str(config), *flags, *(str(word) for pair in keys.items() for word in pair)]


def run_here(data, results, *, processes, script="train.sh", **changes):
    """The same run on this machine alone."""
    environment = {
        "PYTHON": sys.executable, "SKIP_SETUP": "1", "RESULTS": str(results), "GPU": str(processes),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    arguments = words(data, script=script, **changes)
    done = subprocess.run(
        ["bash", str(REPOSITORY / "scripts" / script), *arguments], env=os.environ | environment,
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
    wait_for(lambda: "cannot be reached" in log_of(folders[0]), "node 0 to notice", programs=[first])
    hosts.set_cable("up")
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


def test_a_short_cut_is_sat_out(hosts, data, reference, tmp_path):
    results = tmp_path / "shared"
    nodes = [hosts.start(node, words(data), results, NNODES="2") for node in (0, 1)]
    wait_until(results, 17, *nodes)
    hosts.set_cable("down")
    time.sleep(8)
    hosts.set_cable("up")
    finish(*nodes)
    assert_equal_bits(weights(results), reference)
    assert len(re.findall("Start training at iteration", log_of(results))) == 1


def test_a_long_cut_ends_the_node_and_the_job_goes_on_when_it_is_back(hosts, data, reference, tmp_path):
    """The cut node ends by itself with a clear sentence; started again, as batch systems do, it costs no bit."""
    folders = [tmp_path / "node0", tmp_path / "node1"]
    nodes = [hosts.start(node, words(data), folders[node], NNODES="2") for node in (0, 1)]
    wait_until(folders[0], 17, *nodes)
    hosts.set_cable("down")
    wait_for(lambda: nodes[1].poll() is not None, "the cut node to end", programs=nodes[:1])
    said = nodes[1].output.read_text().splitlines()
    assert any("the node of process 0 cannot be reached" in line for line in said)
    assert "start every node with the same NNODES" in said[-1]
    hosts.set_cable("up")
    nodes[1] = hosts.start(1, words(data), folders[1], NNODES="2")
    finish(*nodes)
    assert_equal_bits(weights(folders[0]), reference)
    assert "the node of process 1 cannot be reached" in log_of(folders[0])


def test_two_nodes_evaluate_as_one_process(hosts, data, tmp_path):
    """The model lies on node 0 alone."""
    trained, here, empty = tmp_path / "trained", tmp_path / "here", tmp_path / "node1"
    run_here(data, trained, processes=1, **{"SOLVER.MAX_ITER": 4})
    shutil.copytree(trained, here)
    low = {"MODEL.ROI_HEADS.SCORE_THRESH": 0.0}  # a model that has hardly learned finds something too
    run_here(data, here, processes=1, script="eval.sh", **low, **{"TEST.IMS_PER_BATCH": 1})
    nodes = [
        hosts.start(node, words(data, script="eval.sh", **low), folder, script="eval.sh", NNODES="2")
        for node, folder in enumerate((trained, empty))
    ]
    finish(*nodes)
    for name in ("bbox.json", "segm.json"):
        found, wanted = (json.loads((folder / "inference" / "tiny" / name).read_text()) for folder in (trained, here))
        assert len(wanted) > 0
        assert found == wanted


def test_a_slurm_job_goes_on_where_it_was_told_to_stop(hosts, data, reference, tmp_path):
    """Slurm's own programs are stubs; the nodes, the signal and the training are real."""
    slurm, results = Slurm(tmp_path, [f"{SUBNET}.1", f"{SUBNET}.2"]), tmp_path / "shared"
    environment = {
        **slurm.environment, "SLURM_HOSTS": " ".join(hosts.names), "SLURM_SUBMIT_DIR": str(REPOSITORY),
        "RESULTS": str(results), "PYTHON": sys.executable, "SKIP_SETUP": "1", "GPU": "1", "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "cable",
    }  # fmt: skip
    job = hosts.run([str(REPOSITORY / "scripts" / "slurm" / "train.sbatch"), *words(data)], environment)
    wait_until(results, 17, job)
    job.send_signal(signal.SIGUSR1)
    finish(job, status=75)
    assert slurm.told("scontrol") == ["requeue 4711"]
    assert not (results / "model_final.pth").exists()
    (slurm.folder / "tasks").unlink()
    finish(hosts.run([str(REPOSITORY / "scripts" / "slurm" / "train.sbatch"), *words(data)], environment))
    assert_equal_bits(weights(results), reference)


def test_a_node_that_joins_later_is_taken_in(hosts, data, tmp_path):
    """The first node saves its state, and goes on with both from there."""
    results, longer = tmp_path / "shared", {**ELASTIC, "SOLVER.MAX_ITER": 200}
    first = hosts.start(0, words(data, **longer), results, NNODES="1:2", RDZV_CONF="last_call_timeout=2")
    wait_until(results, 10, first)
    second = hosts.start(1, words(data, **longer), results, NNODES="1:2", RDZV_CONF="last_call_timeout=2")
    finish(first, second)
    said = re.search(
        r"2 process\(es\) with batches of 2 images go on from 1 with 3; iteration (\d+) is now iteration (\d+)",
        log_of(results),
    )
    before, after = map(int, said.groups())
    assert after == round(before * 3 / 2)
    final = torch.load(results / "model_final.pth", weights_only=True)
    assert (final["iteration"], final["progress"]["earlier"]) == (300, [[1, 3, before]])
