"""Runs that must be equal to the last bit, and runs that must not, as tools/compare_runs.py sees them."""

from __future__ import annotations

import pytest

from tests.apps.repeat_runs import runs

__all__ = ["runs"]  # a fixture

EQUAL = "The runs are equal bit for bit (4 iterations, model_final.pth)."


def test_the_same_run_twice_gives_the_same_bits(runs):
    runs.train("again")
    status, report = runs.compare("whole", "again")
    assert status == 0
    assert EQUAL in report
    traces = [(runs.path(name) / "trace.jsonl").read_bytes() for name in ("whole", "again")]
    assert traces[0] == traces[1]
    ends = [runs.manifest(name)["end"] for name in ("whole", "again")]
    assert ends[0]["weights_sha256"] == ends[1]["weights_sha256"] is not None
    assert ends[0]["evaluation"] == ends[1]["evaluation"] != {}


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_loader_workers_changes_nothing(runs, count):
    runs.train(f"workers_{count}", DATALOADER__NUM_WORKERS=count)
    status, report = runs.compare("whole", f"workers_{count}")
    assert status == 0, report


def test_another_seed_is_another_run(runs):
    runs.train("seed", "--skip-test", SEED=1)
    status, report = runs.compare("whole", "seed")
    assert status == 1
    assert "The runs part: they begin with different weights" in report
    assert "Why (the likeliest first; fact: A | B):\n  config.values.SEED: 0 | 1  (" in report


def test_another_number_of_threads_is_blamed(runs):
    runs.train("threads", "--skip-test", "--max_steps", "2", CPU_THREADS=2)
    status, report = runs.compare("whole", "threads")
    assert status == 1
    assert "Why (the likeliest first; fact: A | B):\n  execution.threads: 1 | 2  (" in report


def test_a_program_started_anew_with_other_hashes_gives_the_same_bits(runs):
    """Another process, another PYTHONHASHSEED, a worker, losses read at other times."""
    runs.launch("hashes", variables={"PYTHONHASHSEED": "77"}, DATALOADER__NUM_WORKERS=1, SOLVER__LOG_PERIOD=3)
    status, report = runs.compare("whole", "hashes")
    assert status == 0, report
    assert runs.manifest("hashes")["facts"]["environment"]["PYTHONHASHSEED"] == "77"


def test_a_resumed_run_has_the_trace_of_the_whole_one(runs):
    """It had gone on to the end after the checkpoint that it resumes from."""
    folder = runs.copy("resumed", of="whole")
    for name in ("model_final.pth", "model_0000004.pth"):
        for path in folder.glob(f"{name}*"):
            path.unlink()
    (folder / "last_checkpoint").write_text(str(folder / "model_0000002.pth"))
    runs.train("resumed")
    assert (folder / "trace.jsonl").read_bytes() == (runs.path("whole") / "trace.jsonl").read_bytes()
    status, report = runs.compare("whole", "resumed")
    assert status == 0, report
    assert "resumed at iteration 2" in report


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_twice_give_the_same_bits(runs):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    for name in ("two_a", "two_b"):
        runs.launch(name, launcher=launcher)
    status, report = runs.compare("two_a", "two_b")
    assert status == 0, report
    assert runs.manifest("two_a")["facts"]["execution"]["processes"] == 2
    status, report = runs.compare("whole", "two_a")
    assert status == 1
    assert "fact: A | B):\n  execution.processes: 1 | 2  (" in report
