"""CPU time that TRACKING.BACKENDS take from a training, beside that of a step of the demo.

    python benchmarks/trackers.py                         every backend whose package is installed
    python benchmarks/trackers.py --backends mlflow       one of them; MLFLOW_TRACKING_URI and the like are respected
    python benchmarks/trackers.py --step 0.35             with a known CPU time of a step, in seconds

Each backend runs in a process of its own, whose whole CPU time counts, with that of all threads and of programs that
the package starts: while log lines come, while nothing comes, and at begin and end together. A demo step comes from two
runs of tools/train_net.py without any backend. All are CPU times, so other programs on the machine matter little.
Prints a table and writes benchmarks/results/trackers.json. Needs Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import json
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
LINES, WAITING = 400, 20.0  # log lines, and seconds
SETTLING = 4.0  # seconds in which a package ends what it does in the background
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
    with tempfile.TemporaryDirectory() as folder:
        total = children_cpu([sys.executable, str(Path(__file__).resolve()), "--worker", name], folder)
        lines, idle = json.loads((Path(folder) / "cpu.json").read_text())
    return {"line": lines / LINES, "idle_second": idle / WAITING, "ends": total - lines - idle}


def cpu_now() -> float:
    """CPU seconds so far of this process, with all its threads, and of the programs that it has started."""
    pids = [os.getpid()]
    for pid in pids:  # grows
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += map(int, (task / "children").read_text().split())
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def work(name: str) -> None:
    """What a process of ``backend_costs`` does: log lines like those of a training, and nothing, each for a while."""
    from maskrcnn_benchmark.apps.sinks import make_sinks
    from maskrcnn_benchmark.config import cfg

    cfg.merge_from_file(str(DEMO))
    cfg.merge_from_list(["TRACKING.BACKENDS", name if name != "none" else "()", "TRACKING.TIMEOUT", 600.0])
    sink = make_sinks(cfg, argparse.Namespace(json_summary="dllogger.out"), ".")
    sink.rewind(0)

    def log(first: int, last: int) -> float:
        for number in range(first, last):
            figures = {figure: 1.0 / (number + place) for place, figure in enumerate(FIGURES)}
            sink.log((number * LOG_PERIOD, 1), figures, text={key: f"{value:.4f}" for key, value in figures.items()})
            time.sleep(PACE)
        while any(getattr(each, "queue", None) and each.queue.qsize() for each in sink.sinks):
            time.sleep(0.1)
        time.sleep(SETTLING)
        return cpu_now()

    begin = log(1, 5)
    end = log(5, 5 + LINES)
    time.sleep(WAITING)
    Path("cpu.json").write_text(json.dumps([end - begin, cpu_now() - end]))
    sink.finish("finished")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--step", type=float, help="CPU seconds of a step, measured where not given")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
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
