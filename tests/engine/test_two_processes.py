"""Every exchange between processes, in two real ones over gloo."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from maskrcnn_benchmark.engine.trainer import do_train
from tests.engine.stand_ins import RecordingSink, TinyLoader, make_run


def start(module, num_processes, folder, repository):
    """Run a module of this folder in several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", f"tests.engine.{module}", str(folder)],
        cwd=repository,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, repository):
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("two")
    start("two_processes", 2, folder, repository)
    return [torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in range(2)]


def train_alone(folder, batch_size, length):
    model, optimizer, scheduler, _ = make_run(folder)
    sink = RecordingSink()
    loader = TinyLoader(length, batch_size=batch_size, size=24)
    do_train(model, loader, optimizer, scheduler, None, "cpu", 0, {"iteration": 0}, sink=sink, log_period=length)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), sink.rows


def test_objects_reach_every_process(outcomes):
    for outcome in outcomes:
        assert outcome["world_size"] == 2
        assert [entry["rank"] for entry in outcome["gathered"]] == [0, 1]
        assert [entry["tensor"].tolist() for entry in outcome["gathered"]] == [[0.0], [1.0, 1.0]]
        assert outcome["broadcast"] == "from 0"


def test_scalars_are_averaged_and_keep_their_order(outcomes):
    for outcome in outcomes:
        assert {name: value.item() for name, value in outcome["mean"].items()} == {"b": 0.5, "a": 1.0}
        assert list(outcome["mean"]) == ["b", "a"]
        assert outcome["sum"]["b"].item() == 1.0


def test_predictions_are_joined_without_duplicates(outcomes):
    assert outcomes[0]["predictions"] == {0: "a", 1: "d", 2: "c", 3: "e", 4: "b"}
    assert list(outcomes[0]["predictions"]) == [0, 1, 2, 3, 4]
    assert outcomes[1]["predictions"] == {}


def test_running_statistics_are_those_of_the_first_process(outcomes):
    assert [outcome["running_mean"].tolist() for outcome in outcomes] == [[3.0, 3.0]] * 2


def test_two_processes_train_as_one_with_the_whole_batch(outcomes, tmp_path):
    alone, rows = train_alone(tmp_path, batch_size=2, length=6)
    for outcome in outcomes:
        torch.testing.assert_close(outcome["weights"], alone, rtol=1e-5, atol=1e-6)
    assert torch.equal(outcomes[0]["weights"], outcomes[1]["weights"])
    for name in ("loss", "loss_one"):
        assert outcomes[0]["losses"][0][1][name] == pytest.approx(rows[0][1][name], rel=1e-5)
    assert outcomes[0]["losses"] == outcomes[1]["losses"]


def test_micro_batches_of_two_processes_are_one_large_batch(outcomes, tmp_path):
    alone, _ = train_alone(tmp_path, batch_size=6, length=2)
    for outcome in outcomes:
        torch.testing.assert_close(outcome["accumulated"], alone, rtol=1e-5, atol=1e-6)


def test_only_the_first_process_writes(outcomes):
    assert outcomes[0]["files"] == ["last_checkpoint", "model_final.pth"]
    assert (outcomes[0]["wrote"], outcomes[1]["wrote"]) == (True, False)


def test_both_stop_when_the_first_has_reached_the_aim(outcomes):
    assert [outcome["stopped_at"] for outcome in outcomes] == [(2,), (2,)]


def test_both_stop_at_a_loss_that_is_not_finite_in_one(outcomes):
    assert outcomes[0]["error"] == outcomes[1]["error"]
    assert "loss_one is nan at iteration 3 (process 1, image ids 1005)" in outcomes[0]["error"]


@pytest.mark.slow
def test_three_processes_resume_bit_for_bit(tmp_path, repository):
    """From three on, the order in which gradients are summed depends on their place in the buckets."""
    start("three_processes", 3, tmp_path, repository)
    weights = torch.load(tmp_path / "weights.pth", weights_only=True)
    for name, tensor in weights["whole"].items():
        assert torch.equal(tensor, weights["resumed"][name]), name
