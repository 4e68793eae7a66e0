"""What repeatability costs: a step with and without DETERMINISTIC, the manifest at the start, the trace on the way.

    python benchmarks/determinism.py                       the demo's network; on a CPU minutes
    python benchmarks/determinism.py --device cuda --config-file configs/e2e_mask_rcnn_R_50_FPN_1x.yaml \
        --size 800 1344 --batch 4 --dtype bfloat16

The two kinds of steps run in processes of their own, in turns. On a CPU both are the same program by design; what is
measured there is how far two equal programs seem to differ on this machine. What runs on the CPU is measured in
processor time, which a busy machine stretches least.

Prints tables and writes benchmarks/results/determinism_<device>.json; with --out, which benchmarks/run.py gives, only
the steps are measured, on a GPU those of R-50-FPN.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks._options import add_suite_options
from benchmarks._rows import OURS, make_row, write_document
from benchmarks._timing import machine, print_table, write_results
from benchmarks.step import make_step
from maskrcnn_benchmark.apps import manifest_facts
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.data.fingerprint import describe_dataset
from maskrcnn_benchmark.engine.precision import Precision, choose_dtype
from maskrcnn_benchmark.engine.seeding import seed_step, use_deterministic_kernels
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.tracking.trace import Trace
from maskrcnn_benchmark.utils.allocator import keep_pages
from maskrcnn_benchmark.utils.digest import digest_tensors
from tests.data.coco_size import NUM_IMAGES, NUM_INSTANCES, write_coco_json

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = ("any order", "deterministic")
DEMO = "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"
RESNET_50 = "configs/e2e_mask_rcnn_R_50_FPN_1x.yaml"


def worker(variant: str, args: argparse.Namespace, pipe: Connection) -> None:
    """Build everything, then run one step each time the pipe says so."""
    device = torch.device(args.device)
    if variant == "deterministic" and device.type == "cuda":
        use_deterministic_kernels()
    keep_pages()
    torch.set_num_threads(args.threads)
    choose_dtype("float32", device)  # exact products in both
    step = make_step(args, device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    pipe.send(None)
    while pipe.recv():
        begin = clock()
        step().item()  # waits for the device
        pipe.send(clock() - begin)


def take_turns(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a step of each variant, turn by turn."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, {}
    for variant in VARIANTS:
        pipes[variant], theirs = context.Pipe()
        processes[variant] = context.Process(target=worker, args=(variant, args, theirs), daemon=True)
        processes[variant].start()
        theirs.close()
        pipes[variant].recv()
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    begin = time.perf_counter()
    for turn in range(args.warmup + args.rounds):
        if turn >= args.warmup + 3 and args.time_limit and time.perf_counter() - begin > 0.5 * args.time_limit:
            break
        for variant in VARIANTS if turn % 2 == 0 else VARIANTS[::-1]:
            pipes[variant].send(True)
            elapsed = pipes[variant].recv()
            if turn >= args.warmup:
                seconds[variant].append(elapsed)
    for variant in VARIANTS:
        pipes[variant].send(False)
        processes[variant].join()
    return seconds


def measure_steps(args: argparse.Namespace) -> dict[str, Any]:
    """The medians of both variants, and the ratio of the two in each turn."""
    seconds = take_turns(args)
    ratios = [after / before for before, after in zip(*(seconds[variant] for variant in VARIANTS), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "median_ms": {variant: round(statistics.median(seconds[variant]) * 1e3, 2) for variant in VARIANTS},
        "ratio": round(middle, 4),
        "ratio_quartiles": [round(low, 4), round(high, 4)],
        "rounds": args.rounds,
    }


def cpu_seconds(call: Callable[[], Any], *, rounds: int = 5) -> float:
    """Median processor time of a call, all threads of this process together."""
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def measure_start(device: torch.device, num_images: int) -> list[dict[str, Any]]:
    """Parts of what the manifest needs at the start of a run, in milliseconds of processor time."""
    cfg = defaults.clone()
    cfg.merge_from_file(str(ROOT / RESNET_50))
    cfg.MODEL.DEVICE = device.type
    state = build_detection_model(cfg).state_dict()
    precision = Precision(device.type)
    source = manifest_facts.digest_source.__wrapped__
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.pth")
        torch.save(state, weights)
        annotations = Path(folder, "coco.json")
        write_coco_json(annotations, num_images=num_images, num_instances=NUM_INSTANCES * num_images // NUM_IMAGES)
        dataset = COCODataset(str(annotations), folder, remove_images_without_annotations=True)
        parts = {
            "versions, machine, variables": manifest_facts.environment_facts,
            "the package's source": source,
            "extension, git": manifest_facts.program_facts,
            "threads, processes, switches": lambda: manifest_facts.execution_facts(device, precision, None),
            "config": lambda: manifest_facts.make_config_facts(cfg),
            "initial weights (R-50-FPN)": lambda: digest_tensors(state),
            "file of initial weights (R-50-FPN)": lambda: manifest_facts.digest_file(weights),
            f"annotations of {len(dataset)} images": lambda: describe_dataset(dataset),
        }
        return [{"part": name, "cpu_ms": round(cpu_seconds(call) * 1e3, 2)} for name, call in parts.items()]


def measure_iteration() -> dict[str, float]:
    """Microseconds of processor time that each iteration of a run pays for being repeatable and traced."""
    count, losses = 2000, {f"loss_{name}": 0.123456789 * number for number, name in enumerate("abcde")}
    with tempfile.TemporaryDirectory() as folder:
        trace = Trace(str(Path(folder, "trace.jsonl")))

        def run() -> None:
            for first in range(0, count, 20):  # SOLVER.LOG_PERIOD
                for iteration in range(first, first + 20):
                    trace.begin(iteration, 0.02, range(16))
                trace.write([(iteration, losses) for iteration in range(first, first + 20)])

        traced = cpu_seconds(run) / count
        size = trace.size / (5 * count)

    def seed() -> None:
        for iteration in range(count):
            seed_step(0, iteration, 0)

    return {
        "trace_us": round(traced * 1e6, 1),
        "seeds_us": round(cpu_seconds(seed) / count * 1e6, 1),
        "trace_bytes": round(size, 1),
    }


def write_suite(args: argparse.Namespace) -> None:
    """Measure the steps and write what benchmarks/run.py asks for."""
    if args.quick:
        args.rounds, args.warmup, args.batch, args.size = 3, 1, 1, [96, 96]
    elif args.device == "cuda":
        args.config_file, args.size, args.dtype = RESNET_50, [800, 1344], "bfloat16"
    before, after = take_turns(args).values()
    height, width = args.size
    case = f"{Path(args.config_file).stem}, {height}x{width}, batch {args.batch}, {args.dtype}"
    samples = {OURS: [1e3 * value for value in after], VARIANTS[0]: [1e3 * value for value in before]}
    clock = "wall" if args.device == "cuda" else "cpu"
    facts = {"unit": "ms", "clock": clock, "threads": args.threads, "device": args.device}
    row = make_row("determinism", "training step, DETERMINISTIC", case, samples, **facts)
    print_table(("step", "median ms"), [(name, figures["median"]) for name, figures in row["results"].items()])
    print(write_document(args.out, [row], machine=machine(), peers={}))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_suite_options(parser, device=True)
    parser.add_argument("--config-file", default=DEMO)
    parser.add_argument("--size", type=int, nargs=2, default=[224, 224], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--objects", type=int, default=6, help="ground truths an image (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="measured turns (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help="of the data set (default: COCO's %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    args = parse_arguments()
    if args.out:
        write_suite(args)
        return
    steps, start, iteration = (
        measure_steps(args),
        measure_start(torch.device(args.device), args.images),
        measure_iteration(),
    )
    share = (iteration["trace_us"] + iteration["seeds_us"]) / (steps["median_ms"]["any order"] * 10)
    total = round(sum(row["cpu_ms"] for row in start), 1)
    print_table(("step", "median ms"), list(steps["median_ms"].items()))
    print(f"deterministic / any order: {steps['ratio']} (quartiles {steps['ratio_quartiles']})\n")
    print_table(("start", "CPU ms"), [(row["part"], row["cpu_ms"]) for row in start] + [("together", total)])
    print(f"\neach iteration: {json.dumps(iteration)}, {share:.3f} % of the step above")
    path = write_results(
        f"determinism_{args.device}",
        start,
        setting={name: getattr(args, name) for name in ("config_file", "size", "batch", "dtype", "device", "threads")},
        steps=steps,
        start_cpu_ms=total,
        iteration={**iteration, "percent_of_step": round(share, 4)},
    )
    print(path)


if __name__ == "__main__":
    main()
