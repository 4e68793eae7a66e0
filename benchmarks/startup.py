"""What a start costs: imports on top of torch, --help, and the way to the end of the first training iteration.

    python benchmarks/startup.py
    python benchmarks/startup.py --peers none --rounds 9

Every figure is of a process of its own; the contenders take turns. Imports: processor time on top of `import torch`,
which is in the table for comparison, and the resident memory of the process. The first iteration: a run of
tools/train_net.py with the demo config, from the start of the process to the line of iteration 1. detectron2 and
torchvision have no such run; they take part in the imports. So does a checkout of the original or of NVIDIA's
(--peer maskrcnn-benchmark=PATH, --peer nvidia=PATH), where it still loads.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._options import add_suite_options, peer_paths, wanted_peers
from benchmarks._peers import find_peers
from benchmarks._rows import OURS, Row, failed_row, make_row, write_document
from benchmarks._timing import machine, print_table

AREA = "start-up"
ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch itself"
DEMO = "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"
# What people import, and what they import elsewhere for the same purpose.
IMPORTS: dict[str, dict[str, str]] = {
    "the package": {OURS: "maskrcnn_benchmark"},
    "the config": {OURS: "maskrcnn_benchmark.config", "detectron2": "detectron2.config"},
    "the network": {
        OURS: "maskrcnn_benchmark.modeling.detector",
        "torchvision": "torchvision.models.detection",
        "detectron2": "detectron2.modeling",
        "maskrcnn-benchmark": "maskrcnn_benchmark.modeling.detector",
        "nvidia": "maskrcnn_benchmark.modeling.detector",
    },
    "training": {
        OURS: "maskrcnn_benchmark.apps.train",
        "detectron2": "detectron2.engine",
        "maskrcnn-benchmark": "maskrcnn_benchmark.engine.trainer",
        "nvidia": "maskrcnn_benchmark.engine.trainer",
    },
    "prediction": {OURS: "maskrcnn_benchmark.apps.predict", "detectron2": "detectron2.engine.defaults"},
}
# Their package has our name: only in a process of its own, from a checkout.
BY_PATH = ("maskrcnn-benchmark", "nvidia")
_IMPORT = """
import sys, time
sys.path[:0] = sys.argv[2:]
begin = time.process_time()
import torch
middle = time.process_time()
{loader}
begin_module = time.process_time()
{statement}
end = time.process_time()
print(middle - begin, end - begin_module, "imported", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Start:
    """What a process cost.

    Attributes:
        cpu: processor seconds of it and its children.
        wall: seconds to the line that was waited for, or to its end.
        memory: peak in MiB up to that line; None where the kernel does not say.
        output: what it printed.
    """

    cpu: float
    wall: float
    memory: float | None
    output: str


def start(words: Sequence[str], *, until: str = "\n") -> Start:
    """Run a program of Python to its end.

    Args:
        words: after the interpreter.
        until: the text of a line at which the wall clock stops, and after which the program does not end at once.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    begin, wall, memory, lines = time.perf_counter(), None, None, []
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if wall is None and until in line:
            wall, memory = time.perf_counter() - begin, peak_memory_mib(process.pid)
            process.stdin.close()  # which the imports wait for
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise RuntimeError("".join(lines[-8:]).strip() or f"status {process.returncode}")
    wall = time.perf_counter() - begin if wall is None else wall
    return Start(usage.ru_utime + usage.ru_stime, wall, memory, "".join(lines))


def peak_memory_mib(process: int) -> float | None:
    """The peak of a process's resident memory; what rusage says of a child begins with its parent's."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) / 1024 if found else None


def import_cost(contender: str, module: str, folder: str) -> tuple[float, float, float | None]:
    """Processor seconds of `import torch`, of the import on top of it, and the peak memory in MiB.

    Raises:
        RuntimeError: it cannot be imported.
    """
    # Their libraries may need stand-ins for those of CUDA, see benchmarks/_peers.py.
    loaders = {"torchvision": "load_torchvision", "detectron2": "load_detectron2"}
    name = loaders.get(contender)
    loader = f"from benchmarks._peers import {name}" if name else ""
    statement = f"{name}(); import {module}" if name else f"import {module}"
    code = _IMPORT.format(loader=loader, statement=statement)
    run = start(["-c", code, contender, *([folder] if folder else [])], until=" imported")
    first, second, _ = run.output.splitlines()[-1].split()
    return float(first), float(second), run.memory


def import_rows(what: str, folders: Mapping[str, str], contenders: Sequence[str], rounds: int) -> list[Row]:
    """The rows of one purpose: processor time and memory."""
    modules = {name: module for name, module in IMPORTS[what].items() if name in contenders}
    case, rows = f"{what}: {modules[OURS]}", []
    seconds: dict[str, list[float]] = {name: [] for name in (*modules, TORCH)}
    memory: dict[str, list[float]] = {name: [] for name in modules}  # empty where the kernel does not say
    for turn in range(rounds + 1):  # the first fills the disk's cache, and writes .pyc files
        for name, module in list(modules.items()):
            try:
                torch_seconds, own_seconds, peak = import_cost(name, module, folders.get(name, ""))
            except RuntimeError as error:
                rows.append(failed_row(AREA, f"import on top of torch, {name}", case, str(error)))
                del modules[name], seconds[name], memory[name]
                continue
            if turn:
                seconds[name].append(own_seconds)
                memory[name] += [] if peak is None else [peak]
                if name == OURS:
                    seconds[TORCH].append(torch_seconds)
    if OURS not in modules:
        return rows
    rows.append(make_row(AREA, "import on top of torch", case, seconds, unit="s", clock="cpu", threads=1))
    if all(memory.values()):
        rows.append(make_row(AREA, "memory after the import", case, memory, unit="MiB", clock="none"))
    return rows


def torch_seconds() -> float:
    """Processor seconds of a process that only imports torch: what a row is measured by on any machine."""
    return start(["-c", "import torch"]).cpu


def program_rows(rounds: int) -> list[Row]:
    """--help of the training program."""
    samples: dict[str, list[float]] = {OURS: [], TORCH: []}
    for _ in range(rounds):
        samples[OURS].append(start(["tools/train_net.py", "--help"]).cpu)
        samples[TORCH].append(torch_seconds())
    return [make_row(AREA, "--help", "tools/train_net.py", samples, unit="s", clock="cpu", threads=1)]


def first_iteration_rows(rounds: int) -> list[Row]:
    """From the start of the process to the end of the first iteration of the demo config, one thread."""
    case = f"tools/train_net.py --config-file {DEMO}"
    cpu: dict[str, list[float]] = {OURS: [], TORCH: []}
    wall: list[float] = []
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        options = ["DATASETS.DATA_DIR", folder, "OUTPUT_DIR", "", "SOLVER.MAX_ITER", "1", "SOLVER.LOG_PERIOD", "1"]
        flags = ["--skip-test", "--skip_checkpoint", "--json-summary", os.devnull]
        command = ["tools/train_net.py", "--config-file", DEMO, *flags, *options]
        for turn in range(rounds + 1):  # the first draws the pictures
            run = start(command, until=" iter: 1 ")
            if turn:
                cpu[OURS].append(run.cpu)
                cpu[TORCH].append(torch_seconds())
                wall.append(run.wall)
                memory += [] if run.memory is None else [run.memory]
    name = "first iteration"
    rows = [
        make_row(AREA, f"{name}, CPU s", case, cpu, unit="s", clock="cpu", threads=1),
        make_row(AREA, f"{name}, wall s", case, {OURS: wall}, unit="s", threads=1),
    ]
    if memory:
        rows.append(make_row(AREA, f"{name}, peak memory", case, {OURS: memory}, unit="MiB", clock="none"))
    return rows


def find_contenders(args: argparse.Namespace) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Ours and the peers that are here; the folders of checkouts; of every peer its version or why it is absent."""
    folders, wanted = peer_paths(args.peer), wanted_peers(args.peers)
    known = [name for name in ("torchvision", "detectron2") if wanted is None or name in wanted]
    peers = find_peers({name: path for name, path in folders.items() if name not in BY_PATH}, known)
    for name in BY_PATH:
        if wanted is None or name in wanted:
            peers[name] = "a checkout" if name in folders else f"absent: no checkout is given with --peer {name}=PATH"
    return [OURS, *(name for name, found in peers.items() if not found.startswith("absent"))], folders, peers


def print_rows(rows: Sequence[Row]) -> None:
    """Every row, one contender a line."""
    cells = []
    for row in rows:
        if "error" in row:
            cells.append([row["name"], row["case"], "failed", None, None])
            continue
        for name, figures in row["results"].items():
            cells.append([row["name"], row["case"], name, figures["median"], row["ratios"].get(name)])
    print_table(["what", "of", "who", "median", "ours is better by"], cells)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print, write; gives the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_suite_options(parser)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns (default: %(default)s)")
    args = parser.parse_args(arguments)
    begin, rounds = time.perf_counter(), 1 if args.quick else args.rounds
    contenders, folders, peers = find_contenders(args)
    parts: list[tuple[str, Callable[[], list[Row]]]] = [
        ("import of training", lambda: import_rows("training", folders, contenders, rounds)),
        ("--help", lambda: program_rows(rounds)),
        ("first iteration", lambda: first_iteration_rows(rounds)),
        *(
            (f"import of {what}", lambda what=what: import_rows(what, folders, contenders, rounds))
            for what in ("the network", "prediction", "the config", "the package")
        ),
    ]
    rows: list[Row] = []
    left_out = []
    for name, measure in parts[:2] if args.quick else parts:
        if args.time_limit is not None and rows and time.perf_counter() - begin > 0.7 * args.time_limit:
            left_out.append(name)
            continue
        try:
            rows += measure()
        except RuntimeError as error:
            rows.append(failed_row(AREA, name, "", str(error)))
    print_rows(rows)
    out = args.out or ROOT / "benchmarks" / "results" / "startup.json"
    print(write_document(out, rows, machine=machine(), peers=peers, left_out=left_out))
    return rows


if __name__ == "__main__":
    main()
