"""Training runs that are killed at random moments and started again end as if nothing had happened, to the last bit."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

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


class Job:
    """tools/train_net.py in two processes over gloo, as scripts/lib.sh starts it.

    Args:
        folder: where it runs.
        argv: the tool's words.
        repository: the checkout.
        restarts: how often torchrun starts it anew.
    """

    def __init__(self, folder, argv, repository, *, restarts=0):
        folder.mkdir(exist_ok=True)
        self.output, self.printed, self.status = folder / "out", folder / "printed.txt", folder / "status"
        environment = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder.parent / "cache")}
        environment |= {"PYTHONPATH": str(repository), "MASKRCNN_STATUS_FILE": str(self.status)}
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", f"--max-restarts={restarts}"]
        tool = [str(repository / "scripts" / "worker.py"), str(repository / "tools" / "train_net.py")]
        with self.printed.open("ab") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *launcher, *tool, *argv],
                cwd=folder,
                env=os.environ | environment,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, name):
        """Return as soon as a file is there."""
        deadline = time.monotonic() + 300
        while not (self.output / name).exists():
            assert self.process.poll() is None, self.printed.read_text()[-4000:]
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def rank(self, number):
        """The process of a rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        wanted = f"RANK={number}".encode()
        (found,) = [pid for pid in children if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
        return int(found)

    def end(self):
        """The exit status of torchrun."""
        try:
            return self.process.wait(300)
        finally:
            self.process.kill()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_rank_and_a_restart_change_nothing(tmp_path, repository):
    """Killed by SIGKILL in one job, told to stop in another: both end with the files of the one left alone."""
    keys = {"OUTPUT_DIR": "out", "SOLVER.MAX_ITER": 60, "SOLVER.CHECKPOINT_PERIOD": 10, "SOLVER.LOG_PERIOD": 7}
    argv = TinyRun(tmp_path).command("--skip-test", keys=keys)
    whole = Job(tmp_path / "whole", argv, repository)
    assert whole.end() == 0, whole.printed.read_text()[-4000:]

    killed = Job(tmp_path / "killed", argv, repository, restarts=1)
    killed.wait_for("model_0000010.pth")
    os.kill(killed.rank(1), signal.SIGKILL)
    assert killed.end() == 0, killed.printed.read_text()[-4000:]
    assert killed.printed.read_text().count("Resuming at iteration") == 1
    assert digest(killed.output / "trace.jsonl") == digest(whole.output / "trace.jsonl")

    told = Job(tmp_path / "told", argv, repository)
    told.wait_for("model_0000010.pth")
    told.process.send_signal(signal.SIGTERM)
    assert told.end() != 0
    assert told.status.read_text() == "75"
    assert "Told to stop by SIGTERM; the same command goes on from out/model_00000" in told.printed.read_text()
    newest = torch.load(told.output.parent / (told.output / "last_checkpoint").read_text(), weights_only=True)
    assert 10 < newest["iteration"] < 60
    told = Job(tmp_path / "told", argv, repository)
    assert told.end() == 0, told.printed.read_text()[-4000:]

    for job in (killed, told):
        assert digest(job.output / "model_final.pth") == digest(whole.output / "model_final.pth")
        assert figures(job.output / "metrics.jsonl") == figures(whole.output / "metrics.jsonl")
