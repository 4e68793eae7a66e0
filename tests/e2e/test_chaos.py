"""Training runs that are killed at random moments and started again end as if nothing had happened, to the last bit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest

from tests.apps.tiny_run import TinyRun

KEYS = {
    "OUTPUT_DIR": "out",
    "SOLVER.MAX_ITER": 7,
    "SOLVER.STEPS": "(5,)",
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "SOLVER.CHECKPOINT_KEEP": 2,
    "SOLVER.LOG_PERIOD": 3,
    "SOLVER.TEST_PERIOD": 3,
}
# What depends on the time of day or the speed of the machine.
MEASURED = {"time", "data", "eta", "memory", "e2e_train_time", "train_perf_fps"}


def figures(path):
    """The lines of metrics.jsonl without what no two runs share."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_same_run(whole, run):
    """Equal weights, momentum, schedule, series, figures, losses of each iteration, evaluations and files."""
    names = ["model_0000004.pth", "model_0000006.pth", "model_final.pth", "trace.jsonl", "evaluations.jsonl"]
    assert {name: digest(run / name) for name in names} == {name: digest(whole / name) for name in names}
    assert figures(run / "metrics.jsonl") == figures(whole / "metrics.jsonl")
    assert (run / "last_checkpoint").read_text() == (whole / "last_checkpoint").read_text()
    assert sorted(os.listdir(run)) == sorted(os.listdir(whole))


@pytest.mark.parametrize(
    ("kills", "seed"), [pytest.param(3, 1, id="short"), pytest.param(20, 2, id="whole", marks=pytest.mark.slow)]
)
@pytest.mark.timeout(1800)
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path, repository, kills, seed):
    tiny = TinyRun(tmp_path)
    argv = tiny.command(keys=KEYS)
    plan = {"argv": argv, "folder": str(tmp_path), "kills": kills, "seed": seed}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.chaos", str(tmp_path / "plan.json")],
        cwd=repository,
        env=os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads((tmp_path / "report.json").read_text())
    whole = tmp_path / "whole" / "out"
    assert [line["iteration"] for line in figures(whole / "metrics.jsonl")] == [3, 6, 7, None]
    for index, starts in enumerate(report):
        run = tmp_path / f"run{index:02d}"
        assert [start["code"] for start in starts] == [-9] * (len(starts) - 1) + [0], (
            starts,
            (run / "printed.txt").read_text()[-4000:],
        )
        assert_same_run(whole, run / "out")
    assert sum(len(starts) - 1 for starts in report) >= kills
