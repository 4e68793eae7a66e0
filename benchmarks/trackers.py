"""CPU time that TRACKING.BACKENDS take from a training, beside that of a step of the demo.

    python benchmarks/trackers.py                         every backend whose package is installed
    python benchmarks/trackers.py --backends mlflow       one of them; MLFLOW_TRACKING_URI and the like are respected
    python benchmarks/trackers.py --step 0.35             with a known CPU time of a step, in seconds

Each backend runs in processes of its own, whose whole CPU time counts, with that of all threads and of programs that
the package starts: for a few and for many log lines, and for the same while waiting. From these follow the CPU time of
a log line, of a second in which nothing happens, and of begin and end together. A demo step comes from two runs of
tools/train_net.py without any backend. All are CPU times, so other programs on the machine matter little. Prints a
table and writes benchmarks/results/trackers.json. Needs Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._timing import print_table, write_results

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "configs" / "demo" / "mask_rcnn_R_18_FPN_shapes.yaml"
LOG_PERIOD = 20  # iterations, SOLVER.LOG_PERIOD of the demo
DEMO_ITERATIONS = 3000
FEW, MANY, WAITING = 10, 410, 20.0  # log lines, and seconds
PACE = 0.02  # seconds between two log lines
STEPS = (10, 40)
BACKENDS = ("jsonl", "dllogger", "tensorboard", "mlflow", "clearml", "neptune", "wandb")
_PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl.h
FIGURES = (
    "learning_rate", "memory", "loss", "loss_box_reg", "loss_classifier", "loss_mask", "loss_objectness",
    "loss_rpn_box_reg", "time", "data",
)  # fmt: skip


def children_cpu(command: list[str], folder: str) -> float:
    """CPU seconds of a program and of all that it starts."""
    environment = {
        "CLEARML_OFFLINE_MODE": "1",
        "CLEARML_CACHE_DIR": folder,
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()  # for what it has left behind
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def demo_step() -> float:
    """CPU seconds of a training step of the demo, its loader included."""
    cpu = []
    with tempfile.TemporaryDirectory() as folder:
        for iterations in STEPS:
            command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config-file", str(DEMO), "--skip-test"]
            command += [
                "--skip_checkpoint",
                "--max_steps",
                str(iterations),
                "TRACKING.BACKENDS",
                "()",
                "REPORT",
                "False",
            ]
            command += ["DATASETS.DATA_DIR", str(ROOT / "datasets"), "OUTPUT_DIR", folder]
            cpu.append(children_cpu(command, folder))
    return (cpu[1] - cpu[0]) / (STEPS[1] - STEPS[0])


def backend_costs(name: str) -> dict[str, float]:
    """CPU seconds of a log line, of a second without one, and of begin and end."""

    def run(lines: int, wait: float) -> float:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(Path(__file__).resolve()), "--worker", name, str(lines), str(wait)]
            return children_cpu(command, folder)

    few, many, waiting = run(FEW, 0.0), run(MANY, 0.0), run(FEW, WAITING)
    line = max(many - few, 0.0) / (MANY - FEW)
    return {"line": line, "idle_second": max(waiting - few, 0.0) / WAITING, "ends": few - FEW * line}


def work(name: str, lines: int, wait: float) -> None:
    """What a process of ``backend_costs`` does: log lines like those of a training."""
    from maskrcnn_benchmark.apps.sinks import make_sinks
    from maskrcnn_benchmark.config import cfg

    cfg.merge_from_file(str(DEMO))
    cfg.merge_from_list(["TRACKING.BACKENDS", name if name != "none" else "()", "TRACKING.TIMEOUT", 600.0])
    sink = make_sinks(cfg, argparse.Namespace(json_summary="dllogger.out"), ".")
    sink.rewind(0)
    for number in range(1, lines + 1):
        figures = {name: 1.0 / (number + place) for place, name in enumerate(FIGURES)}
        sink.log((number * LOG_PERIOD, 1), figures, text={name: f"{value:.4f}" for name, value in figures.items()})
        time.sleep(PACE)
    time.sleep(wait)
    sink.finish("finished")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--step", type=float, help="CPU seconds of a step, measured where not given")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        name, lines, wait = args.worker
        work(name, int(lines), float(wait))
        return
    # Orphans become children of this process, which can then count them.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    step = args.step or demo_step()
    none = backend_costs("none")
    rows: list[dict[str, Any]] = []
    for name in args.backends:
        if name not in ("jsonl", "dllogger") and importlib.util.find_spec(name) is None:
            print(f"{name} is not installed")
            continue
        cost = backend_costs(name)
        period = LOG_PERIOD * step  # on one thread a second of CPU time is one of the clock
        of_steps = (cost["line"] + cost["idle_second"] * period) / period
        ends = cost["ends"] - none["ends"]
        of_demo = of_steps + ends / (DEMO_ITERATIONS * step)
        row = {"backend": name, "log_line_ms": cost["line"] * 1e3, "idle_ms_a_second": cost["idle_second"] * 1e3}
        rows.append(
            {**row, "begin_and_end_s": ends, "percent_of_a_step": of_steps * 100, "percent_of_demo": of_demo * 100}
        )
    print(f"a step of the demo: {step:.3f} s of CPU time; a log line every {LOG_PERIOD} steps")
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    print(write_results("trackers", rows, step_cpu_s=step, log_period=LOG_PERIOD))


if __name__ == "__main__":
    main()
