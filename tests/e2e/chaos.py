"""Kills training runs and starts them again: python -m tests.e2e.chaos PLAN.json

The plan: {"argv": words for tools/train_net.py, "folder": where the runs go, "seed": int, "kills": int}. Every run is a
fork of this process, which has imported everything, so that a start takes a fraction of a second. The first run, in
``whole``, is left alone; its moments are noted. Each further one, in ``run00``, ``run01``, ..., is killed by SIGKILL at
one of these moments or after a random time, perhaps once more after its next start, and then left to end. What was done
to each is written to ``report.json``.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
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


class Moments:
    """Counts what happens in a run, in all its threads, and kills it at the moment with a given number.

    Args:
        fatal: the number; 0 for none.
    """

    def __init__(self, fatal: int) -> None:
        self.fatal = fatal
        self.names: list[str] = []
        self.lock = threading.Lock()

    def pass_by(self, name: str) -> None:
        with self.lock:
            self.names.append(name)
            if len(self.names) == self.fatal:
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


def start(argv: list[str], folder: Path, *, moment: int = 0, seconds: float = 0.0) -> tuple[int, float]:
    """One start of a run in ``folder``, killed at the moment with this number or after some time, 0: neither.

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
            Path("moments.json").write_text(json.dumps(moments.names))
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


def choose_kills(names: list[str], number: int, generator: random.Random) -> list[int]:
    """Numbers of moments, each of another kind as long as there are any; each third is 0, for a random time.

    The first is within the writing of a checkpoint, the second when the figures of the last evaluation are not noted.
    """
    kinds = sorted(set(names))
    generator.shuffle(kinds)
    first = [choose_moment(names, "within write", generator), len(names) - names[::-1].index("before evaluation")]
    chosen = []
    for index in range(number):
        if index < len(first):
            chosen.append(first[index])
        elif index % 3 == 2:
            chosen.append(0)
        else:
            chosen.append(choose_moment(names, kinds.pop() if kinds else generator.choice(names), generator))
    return chosen


def choose_moment(names: list[str], kind: str, generator: random.Random) -> int:
    """The number of any moment of a kind."""
    return generator.choice([at for at, name in enumerate(names, 1) if name == kind])


def main(plan_path: str) -> None:
    """Run the plan."""
    torch.set_num_threads(1)
    plan = json.loads(Path(plan_path).read_text())
    folder, argv, generator = Path(plan["folder"]), plan["argv"], random.Random(plan["seed"])
    whole = folder / "whole"
    whole.mkdir()
    code, duration = start(argv, whole)
    assert code == 0, (whole / "printed.txt").read_text()[-4000:]
    names = json.loads((whole / "moments.json").read_text())
    report = []
    for index, moment in enumerate(choose_kills(names, plan["kills"], generator)):
        run = folder / f"run{index:02d}"
        run.mkdir()
        done = []
        for attempt in range(5):
            if attempt == 1:  # perhaps again; there may be too few such moments now
                again = choose_moment(names, generator.choice(sorted(set(names))), generator)
                moment = generator.choice([-1, again])
            seconds = generator.uniform(0.05, 0.95) * duration if moment == 0 else 0.0
            code, _ = start(argv, run, moment=max(moment, 0), seconds=seconds)
            what = names[moment - 1] if moment > 0 else "time" if moment == 0 else "none"
            done.append({"moment": moment, "what": what, "seconds": seconds, "code": code})
            if code == 0:
                break
            if attempt >= 1:
                moment = -1
        report.append(done)
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
