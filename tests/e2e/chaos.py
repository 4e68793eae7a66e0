"""Kills training runs and starts them again: python -m tests.e2e.chaos PLAN.json

The plan: {"argv": words for tools/train_net.py, "folder": where the runs go, "seed": int, "kills": int}. Every run is a
fork of this process, which has imported everything, so that a start takes a fraction of a second. The first run, in
``whole``, is left alone; its moments are counted. Each further one, in ``run00``, ``run01``, ..., is killed by SIGKILL
at one of these moments or after a random time, each second one once more after its next start, and then left to end.
What was done to each is written to ``report.json``.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from maskrcnn_benchmark.apps import tester
from maskrcnn_benchmark.apps import train as train_app
from maskrcnn_benchmark.checkpoint import checkpointer, files
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.modeling.detector.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.tracking.evaluations import EvaluationLog
from maskrcnn_benchmark.tracking.json_lines import JsonLinesSink

Moment = tuple[str, int]
"""A kind of moment and which one of its kind it is, from 1; the order among threads differs from run to run."""


class Moments:
    """Counts what happens in a run, in all its threads, and kills it at a given moment.

    Args:
        fatal: the moment; None for none.
    """

    def __init__(self, fatal: Moment | None) -> None:
        self.fatal = fatal
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    def pass_by(self, name: str) -> None:
        with self.lock:
            self.counts[name] += 1
            if self.fatal == (name, self.counts[name]):
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: object, attribute: str, name: str) -> None:
        """Count a function's beginning and end."""
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def watched(*args, **kwargs):
            self.pass_by(f"before {name}")
            result = original(*args, **kwargs)
            self.pass_by(f"after {name}")
            return result

        setattr(owner, attribute, watched)

    def install(self) -> None:
        for owner, attribute, name in (
            (os, "fsync", "fsync"),
            (os, "replace", "replace"),
            (os, "unlink", "unlink"),
            (checkpointer, "copy_to_host", "copy"),
            (checkpointer, "read_newest", "load"),
            (TrainStep, "__call__", "step"),
            (GeneralizedRCNN, "forward", "forward"),
            (JsonLinesSink, "log", "figures"),
            (JsonLinesSink, "rewind", "rewind"),
            (EvaluationLog, "add", "evaluation"),
            (tester, "run_tests", "test"),
        ):
            self.watch(owner, attribute, name)

        write = files._ErrorKeeper.write

        def write_in_halves(file, data):
            data = memoryview(data)
            half = len(data) // 2
            done = write(file, data[:half])
            file.flush()
            self.pass_by("within write")
            return done + write(file, data[half:])

        files._ErrorKeeper.write = write_in_halves


def start(argv: list[str], folder: Path, *, moment: Moment | None = None, seconds: float = 0.0) -> tuple[int, float]:
    """One start of a run in ``folder``, killed at a moment, or after some time (0: not at all).

    Returns:
        Exit code (negative: the signal that ended it) and duration in seconds.
    """
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(folder)
            output = os.open("printed.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            moments = Moments(moment)
            moments.install()
            train_app.main(train_app.make_parser().parse_args(argv), cfg)
            Path("moments.json").write_text(json.dumps(moments.counts))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # of a run that has ended: a process not yet waited for
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - begin


def choose_kills(counts: Mapping[str, int], number: int, generator: random.Random) -> list[Moment | None]:
    """Moments, each of another kind as long as there are any; each third is None, for a random time.

    The first is within the writing of a checkpoint, the second when the figures of the last evaluation are not noted.
    """
    kinds = sorted(counts)
    generator.shuffle(kinds)
    chosen: list[Moment | None] = [
        choose_moment(counts, "within write", generator),
        ("before evaluation", counts["before evaluation"]),
    ]
    while len(chosen) < number:
        if len(chosen) % 3 == 2:
            chosen.append(None)
        else:
            kind = kinds.pop() if kinds else generator.choice(sorted(counts))
            chosen.append(choose_moment(counts, kind, generator))
    return chosen


def choose_moment(counts: Mapping[str, int], kind: str, generator: random.Random) -> Moment:
    """Any moment of a kind."""
    return kind, generator.randint(1, counts[kind])


def try_run(argv: list[str], folder: Path, kills: list[tuple[Moment | None, float]]) -> list[dict[str, object]]:
    """Start a run until it ends, killing it at a moment or after some seconds the first times."""
    done: list[dict[str, object]] = []
    for moment, seconds in [*kills, (None, 0.0)]:
        code, _ = start(argv, folder, moment=moment, seconds=seconds)
        done.append({"moment": moment, "seconds": seconds, "code": code})
        if code == 0:
            break
    return done


def main(plan_path: str) -> None:
    """Run the plan."""
    torch.set_num_threads(1)
    plan = json.loads(Path(plan_path).read_text())
    folder, argv, generator = Path(plan["folder"]), plan["argv"], random.Random(plan["seed"])
    whole = folder / "whole"
    whole.mkdir()
    code, duration = start(argv, whole)
    assert code == 0, (whole / "printed.txt").read_text()[-4000:]
    counts = json.loads((whole / "moments.json").read_text())
    report = []
    for index, moment in enumerate(choose_kills(counts, plan["kills"], generator)):
        kills = [(moment, 0.0 if moment else generator.uniform(0.05, 0.95) * duration)]
        if index % 2:  # once more; there may be too few such moments then
            kills.append((choose_moment(counts, generator.choice(sorted(counts)), generator), 0.0))
        run = folder / f"run{index:02d}"
        run.mkdir()
        starts = try_run(argv, run, kills)
        while moment is None and len(starts) == 1:  # it was faster than the first one, and had ended
            kills[0] = (moment, kills[0][1] / 2)
            shutil.rmtree(run)
            run.mkdir()
            starts = try_run(argv, run, kills)
        report.append(starts)
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
