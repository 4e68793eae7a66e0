"""A process of a run of two dies: the other follows, the cause is told first, and torchrun's restart goes on right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import torch

from tests.apps.tiny_run import TinyRun

pytestmark = pytest.mark.slow

KEYS = {"SOLVER.MAX_ITER": 6, "SOLVER.IMS_PER_BATCH": 2, "SOLVER.CHECKPOINT_PERIOD": 2, "DATALOADER.NUM_WORKERS": 1}


@dataclass
class Outcome:
    """How a job ended."""

    status: int
    output: str
    seconds_after_fault: float


def launch(repository, run, *, fault=("none", 0, 999), restarts=0):
    """Train in two processes under torchrun, as scripts/lib.sh starts them."""
    kind, rank, iteration = fault
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [f"--max-restarts={restarts}", "-m", "tests.e2e.failing_rank"]
    command += [str(run.folder / "marker"), kind, str(rank), str(iteration), *run.command("--skip-test", keys=KEYS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(run.folder / "cache")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=repository, env=environment, **pipes) as job:
        try:
            output, _ = job.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            job.terminate()  # the launcher ends its processes
            output, _ = job.communicate()
            pytest.fail(f"the job does not end:\n{output[-4000:]}")
    planted = [line for line in output.splitlines() if line.startswith("planted")]
    return Outcome(job.returncode, output, time.time() - float(planted[0].split()[-1]) if planted else 0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, repository):
    """The final weights of a run that nothing happened to."""
    run = TinyRun(tmp_path_factory.mktemp("whole"))
    outcome = launch(repository, run)
    assert outcome.status == 0, outcome.output[-4000:]
    return torch.load(run.output / "model_final.pth", weights_only=True)


def assert_down(outcome):
    assert outcome.status != 0
    assert outcome.seconds_after_fault < 60
    # one that only sees the broken connection says so in one line, or not at all when the launcher is faster
    lines = [line for line in outcome.output.splitlines() if "another process of the run has gone" in line]
    assert len(lines) <= 1
    assert outcome.output.count("Connection closed by peer") <= len(lines)


def test_a_killed_process_ends_the_job(tmp_path, repository):
    outcome = launch(repository, TinyRun(tmp_path), fault=("sigkill", 1, 4))
    assert_down(outcome)
    assert "Signal 9 (SIGKILL)" in outcome.output
    assert "rank      : 1 (local_rank: 1)" in outcome.output.split("Root Cause")[1]


def test_a_crashed_process_shows_its_stack(tmp_path, repository):
    outcome = launch(repository, TinyRun(tmp_path), fault=("sigsegv", 1, 4))
    assert_down(outcome)
    assert "Fatal Python error: Segmentation fault" in outcome.output
    assert "failing_rank.py" in outcome.output
    assert "Signal 11 (SIGSEGV)" in outcome.output.split("Root Cause")[1]


def test_a_fault_of_the_program_shows_its_traceback_first(tmp_path, repository):
    outcome = launch(repository, TinyRun(tmp_path), fault=("exception", 0, 4))
    assert_down(outcome)
    assert "AttributeError: a fault of the program itself" in outcome.output.split("Root Cause")[1]
    before = outcome.output.partition("AttributeError: a fault")[0]
    assert before.count("Traceback (most recent call last)") == 1


def test_what_every_process_has_to_say_is_said_once(tmp_path, repository):
    outcome = launch(repository, TinyRun(tmp_path), fault=("mistake", -1, 4))
    assert_down(outcome)
    sentence = "a mistake of the user that every process sees: mistake"
    assert len([line for line in outcome.output.splitlines() if line.startswith("error") and sentence in line]) == 1
    assert sentence in outcome.output.split("Root Cause")[1]
    assert outcome.output.count("Traceback") == 1  # torchrun's own


def test_memory_that_runs_out_names_batch_and_checkpoint(tmp_path, repository):
    run = TinyRun(tmp_path)
    outcome = launch(repository, run, fault=("memory", 1, 4))
    assert_down(outcome)
    (line,) = [line for line in outcome.output.splitlines() if line.startswith("error (process 1)")]
    assert "out of memory on cpu at iteration 4 (process 1) with a batch of 1 x 3 x " in line
    assert "image ids" in line
    assert "SOLVER.IMS_PER_BATCH" in line
    assert f"the last checkpoint is {run.output / 'model_0000002.pth'}" in line


@pytest.mark.parametrize("rank", [0, 1])
def test_a_restart_goes_on_from_the_checkpoint_to_the_same_weights(tmp_path, repository, whole, rank):
    run = TinyRun(tmp_path)
    outcome = launch(repository, run, fault=("sigkill", rank, 4), restarts=1)
    assert outcome.status == 0, outcome.output[-4000:]
    assert "planted sigkill" in outcome.output
    assert "Resuming at iteration 2" in outcome.output
    final = torch.load(run.output / "model_final.pth", weights_only=True)
    assert list(final["model"]) == list(whole["model"])
    assert all(torch.equal(final["model"][name], value) for name, value in whole["model"].items())
    states = zip(final["optimizer"]["state"].values(), whole["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(a["momentum_buffer"], b["momentum_buffer"]) for a, b in states)
