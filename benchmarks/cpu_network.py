"""The training step and the inference of Mask R-CNN R-50-FPN on a CPU, ours beside the peers.

Every network has a process of its own, with the same work: one picture of 800x1333, float32, 128 positive regions in
training, 100 detections and their masks pasted into the picture in inference, the first two parts of the backbone
frozen. They take turns, one step each, so that other load on the machine meets all alike: processor time of one thread,
elapsed time of two. Then the stages of a step, the peak memory of each process, and, for ours, how far every stage is
from the bound: its operations, counted as direct convolutions, over the rate of a large matrix product.

    python benchmarks/cpu_network.py                                   both; writes benchmarks/results/cpu_network.json
    python benchmarks/cpu_network.py --task inference --rounds 9
    python benchmarks/cpu_network.py --peer detectron2=/src/detectron2 --peers detectron2
    python benchmarks/cpu_network.py --opts DTYPE bfloat16             keys of our config

torchvision's wheel loads beside a CPU build of PyTorch, see benchmarks/_peers.py.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import _peers
from benchmarks._network_worker import BUILDERS, OURS, Job, serve
from benchmarks._options import add_suite_options, peer_paths, wanted_peers
from benchmarks._rows import Row, failed_row, make_row, write_document
from benchmarks._timing import RESULTS, machine, print_table
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.utils.openmp import share_cores

TASKS = {"train": "step", "inference": "inference"}  # task to area
_NAMES = {"train": "training step", "inference": "inference"}
# What is timed: (threads, name of the clock, words).
_TIMED = ((1, "cpu", "CPU s of one thread"), (2, "wall", "wall s of two threads"))
_QUICK_ROUNDS = 3


class Contender:
    """A network in a process of its own."""

    def __init__(self, name: str, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(name, job, theirs), daemon=True)
        with mock.patch.dict(os.environ):
            if name == OURS:
                share_cores()  # as our programs do before they import torch, which the process does at its start
            self.process.start()
        theirs.close()

    def ready(self) -> None:
        """Wait until it is built and has made a step; RuntimeError where that failed."""
        self._receive()

    def ask(self, command: str, threads: int = 1) -> Any:
        """Let it run a command of `serve` and wait for the result."""
        self.pipe.send((command, threads))
        return self._receive()

    def close(self) -> None:
        """End it."""
        if self.process.is_alive():
            self.pipe.send(None)
        self.process.join()

    def _receive(self) -> Any:
        try:
            result, error = self.pipe.recv()
        except EOFError:
            error = "its process ended"
        if error:
            raise RuntimeError(error)
        return result


class Deadline:
    """Whether there is time for another piece of work; None: always."""

    def __init__(self, seconds: float | None) -> None:
        self.end = None if seconds is None else time.perf_counter() + seconds

    def leaves(self, seconds: float) -> bool:
        """Whether so many seconds are left."""
        return self.end is None or time.perf_counter() + seconds <= self.end


def take_turns(
    contenders: Mapping[str, Contender], rounds: int, deadline: Deadline, clocks: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Seconds of every step: by clock, by contender, turn by turn; each has made a step before."""
    timed = [(threads, clock) for threads, clock, _ in _TIMED if clock in clocks]
    seconds: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in contenders} for _, clock in timed}
    names, longest = list(contenders), 0.0
    for turn in range(rounds):
        # One at least; what comes after the rounds takes about another one.
        if turn and not deadline.leaves(2 * longest):
            break
        begin = time.perf_counter()
        for threads, clock in timed:
            for name in names if turn % 2 == 0 else reversed(names):
                processor, wall = contenders[name].ask("step", threads)
                seconds[clock][name].append(processor if clock == "cpu" else wall)
        longest = max(longest, time.perf_counter() - begin)
    return seconds


def measure_task(
    job: Job, names: Sequence[str], rounds: int, deadline: Deadline, clocks: Sequence[str]
) -> Iterator[Row]:
    """The rows of a task; a contender that fails is named in a row of its own."""
    area, case = TASKS[job.task], describe(job)
    contenders = {name: Contender(name, job) for name in names}
    for name, contender in list(contenders.items()):
        try:
            contender.ready()
        except RuntimeError as error:
            yield failed_row(area, f"{_NAMES[job.task]}, {name}", case, str(error))
            contenders.pop(name).close()
    if OURS not in contenders:
        return
    seconds = take_turns(contenders, rounds, deadline, clocks)
    stages = {name: contender.ask("stages") for name, contender in contenders.items()}
    memory = {name: [contender.ask("memory")] for name, contender in contenders.items()}
    regions = {name: contender.ask("regions") for name, contender in contenders.items()}
    operations = contenders[OURS].ask("operations") if deadline.leaves(0) else None
    for threads, clock, words in _TIMED:
        if clock not in clocks:
            continue
        more: dict[str, Any] = {"regions": regions, "matmul_gflops": contenders[OURS].ask("matmul", threads)}
        if clock == "cpu":
            more |= {"stages_ms": stages, "gflop": operations}
        name = f"{_NAMES[job.task]}, {words}"
        yield make_row(area, name, case, seconds[clock], unit="s", clock=clock, threads=threads, **more)
    name = f"{_NAMES[job.task]}, peak memory"
    yield make_row(area, name, case, memory, unit="MiB", clock="none", threads=2)
    for contender in contenders.values():
        contender.close()


def describe(job: Job) -> str:
    """The case of a job's rows."""
    height, width = job.image_size
    regions = f"{job.positives} positives" if job.task == "train" else "100 detections pasted"
    options = f", {' '.join(job.options)}" if job.options else ""
    return f"R-50-FPN, {height}x{width}, batch 1, float32, {regions}{options}"


def print_rows(rows: Sequence[Row]) -> None:
    """Speed, stages, and how far ours is from the bound."""
    cells = []
    for row in rows:
        if "error" in row:
            cells.append([row["name"], "failed", None, None, None])
            print(f"{row['name']}:\n{row['error']}")
            continue
        for name, figures in row["results"].items():
            samples = figures["samples"]
            ratio = row["ratios"].get(name)
            cells.append([row["name"], name, figures["median"], min(samples), ratio])
    print_table(["what", "who", "median", "least", "ours is better by"], cells)
    for row in rows:
        if "stages_ms" not in row:
            continue
        stages = list(dict.fromkeys(stage for figures in row["stages_ms"].values() for stage in figures))
        print(f"\nCPU ms of the stages of {row['name'].partition(',')[0]}; bound: at the rate of a matrix product")
        lines = [[name, *(figures.get(stage) for stage in stages)] for name, figures in row["stages_ms"].items()]
        if row["gflop"]:
            lines.append(["bound", *(_bound_ms(row, stage) for stage in stages)])
        print_table(["who", *stages], lines)


def _bound_ms(row: Row, stage: str) -> float | None:
    operations = row["gflop"].get(stage)
    return operations and 1e3 * operations / row["matmul_gflops"]


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_suite_options(parser)
    add = parser.add_argument
    add("--task", choices=(*TASKS, "both"), default="both")
    add("--clocks", nargs="+", choices=("cpu", "wall"), default=["cpu", "wall"], help="what is timed (default: both)")
    add("--config-file", default="configs/e2e_mask_rcnn_R_50_FPN_1x.yaml", metavar="FILE")
    add("--image-size", type=int, nargs=2, default=[800, 1333], metavar=("H", "W"))
    add("--positives", type=int, default=128, metavar="N", help="of a training step (default: %(default)s)")
    add("--rounds", type=int, default=5, metavar="N", help="turns of each network (default: %(default)s)")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="config keys of ours")
    return parser


def find_contenders(args: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Ours and the peers that are here, and of every peer its version or why it is absent."""
    wanted, known = wanted_peers(args.peers), [name for name in BUILDERS if name != OURS]
    # A spawned process gets this one's sys.path, and with it the checkouts.
    peers = _peers.find_peers(peer_paths(args.peer), [name for name in known if wanted is None or name in wanted])
    return [OURS, *(name for name, version in peers.items() if not version.startswith("absent"))], peers


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print, write; gives the rows."""
    args = make_parser().parse_args(arguments)
    if args.quick:
        args.image_size, args.rounds, args.positives = [96, 128], _QUICK_ROUNDS, 8
    deadline = Deadline(args.time_limit)
    names, peers = find_contenders(args)
    rows: list[Row] = []
    left_out = []
    for task in TASKS if args.task == "both" else (args.task,):
        job = Job(task, tuple(args.image_size), args.positives, args.config_file, tuple(args.opts))
        new = list(measure_task(job, names, args.rounds, deadline, args.clocks))
        done = [len(row["results"][OURS]["samples"]) for row in new if row.get("clock") in args.clocks]
        if done and min(done) < args.rounds:
            left_out.append(f"{_NAMES[task]}: {args.rounds - min(done)} of {args.rounds} rounds")
        rows += new
    out = args.out or RESULTS / "cpu_network.json"
    print_rows(rows)
    print(write_document(out, rows, machine=machine(), peers=peers, left_out=left_out))
    return rows


if __name__ == "__main__":
    with user_errors():
        main()
