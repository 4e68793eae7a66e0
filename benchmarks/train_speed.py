"""Training images/s for batch sizes, number formats, layouts and captures, beside torchvision in the same run.

Each row is one setting of ours. It and torchvision's network take turns on the same batches, a few steps each, so that
a slow minute meets both alike; then the stages of both are measured. Invented photos of one size, the same number of
positive regions for both. Meant for a GPU; on a CPU the defaults are one row for each batch size.

    python benchmarks/train_speed.py                                     the whole table
    python benchmarks/train_speed.py --part 1/4                          a quarter of the rows
    python benchmarks/train_speed.py --only "bfloat16 nhwc" --batch-sizes 8,12
    python benchmarks/train_speed.py --variants nhwc,nhwc+compile --rounds 3

Prints a table and writes benchmarks/results/train_speed.json. Rows that the file has from the same device and that are
not measured now stay in it, so several commands fill one table. After --time-limit seconds no further row is begun.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks._options import peer_paths, wanted_peers
from benchmarks._peers import find_peers
from benchmarks._rows import OURS, Row, failed_row, make_row, write_document
from benchmarks._timing import machine, print_table
from maskrcnn_benchmark.apps.benchmark_build import Workload, build_training_run
from maskrcnn_benchmark.apps.benchmark_network import STAGES
from maskrcnn_benchmark.apps.benchmark_plan import Plan, build_plan, kept_settings, split_list
from maskrcnn_benchmark.apps.benchmark_report import measure_stages
from maskrcnn_benchmark.apps.benchmark_run import TrainingRun
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.engine.measure import processor_name, summarize_times
from maskrcnn_benchmark.engine.stages import make_clock
from maskrcnn_benchmark.utils.allocator import keep_pages
from maskrcnn_benchmark.utils.flops import model_flops_utilization, peak_tflops

ROOT = Path(__file__).resolve().parent.parent
AREA, THEIRS = "train_speed", "torchvision"
DTYPES = {"cuda": "bfloat16,float16,tf32,float32", "cpu": "float32"}
VARIANTS = {"cuda": "nchw,nhwc,nchw+cuda_graphs,nhwc+cuda_graphs", "cpu": "nchw"}


def list_plans(args: argparse.Namespace, device: torch.device) -> list[Plan]:
    """The rows that the arguments ask for, small batches first."""
    number, parts = (int(word) for word in args.part.split("/"))
    if not 1 <= number <= parts:
        raise ValueError(f"--part is {args.part}; it is a number and how many parts there are, such as 1/4")
    base = defaults.clone()
    base.merge_from_file(str(ROOT / args.config_file))
    # torchvision's network has the stride of a block in its 3x3 convolution.
    base.merge_from_list(["MODEL.DEVICE", device.type, "MODEL.RESNETS.STRIDE_IN_1X1", False, *args.opts])
    args.synthetic, args.iterations, args.stage_iterations = True, args.steps, args.stages
    plans = [
        build_plan(base, args, device, "train", variant, int(size), dtype)
        for dtype in split_list(args.dtypes or DTYPES[device.type])
        for size in split_list(args.batch_sizes)
        for variant in split_list(args.variants or VARIANTS[device.type])
    ]
    plans = [plan for plan in plans if re.search(args.only, name_of(plan))]
    return plans[number - 1 :: parts]


def name_of(plan: Plan) -> str:
    """What --only looks at, and what a row is known by."""
    return f"batch {plan.batch_size} {plan.dtype} {plan.variant}"


def measure_pair(runs: Mapping[str, TrainingRun], plan: Plan, device: torch.device, rounds: int) -> dict[str, Any]:
    """Let the runs take turns.

    Returns:
        Of each run: images_per_second (the median of the rounds), step_ms, stages_ms, positives_per_image.
    """
    clock, times = make_clock(device), {name: [] for name in runs}
    for turn in range(rounds + 1):  # the first is the warm-up
        for name, run in runs.items() if turn % 2 == 0 else reversed(runs.items()):
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # neither begins with a queue that filled while the other computed
            marks = [clock.mark()]
            for _ in range(plan.iterations if turn else plan.warm_up):
                run.step()
                marks.append(clock.mark())
            milliseconds = [clock.between(*pair) for pair in itertools.pairwise(marks)]
            if turn:
                times[name].append(milliseconds)
    figures = {}
    for name, run in runs.items():
        per_round = [1e3 * plan.batch_size / statistics.fmean(part) for part in times[name]]
        stages = measure_stages(run, device, plan.stage_iterations)
        counts = [int(count) for count in run.region_counts]
        figures[name] = {
            "images_per_second": statistics.median(per_round),
            "images_per_second_of_rounds": per_round,
            "step_ms": summarize_times([value for part in times[name] for value in part]),
            "stages_ms": stages,
            "positives_per_image": statistics.fmean(counts) / plan.batch_size if counts else None,
        }
    return figures


def measure_plan(plan: Plan, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """One row: ours, and torchvision unless it is left out."""
    size = tuple(args.image_size)
    length = plan.warm_up + args.rounds * plan.iterations + plan.stage_iterations
    row = {"name": name_of(plan), **plan.describe(), "image_size": list(size), "positives": args.positives}
    try:
        workload = Workload(synthetic=True, image_size=size, positives=args.positives, count_flops=not args.no_flops)
        runs = {OURS: build_training_run(plan.cfg, device, workload, length=length)}
        if not args.no_torchvision:
            from benchmarks._torchvision import build_torchvision_run

            runs[THEIRS] = build_torchvision_run(
                plan.cfg, device, image_size=size, positives=args.positives, length=length
            )
        row |= measure_pair(runs, plan, device, args.rounds)
    except torch.OutOfMemoryError:
        return row | {"error": "out of memory"}
    ours = runs[OURS]
    if ours.flops is not None:
        regions = row[OURS]["positives_per_image"]
        pixels = plan.batch_size * size[0] * size[1]
        count = ours.flops.regions if regions is None else regions * plan.batch_size
        operations = ours.flops.of_step(pixels=pixels, regions=count)
        row["tflop_per_image"] = operations / plan.batch_size / 1e12
        peak = args.peak_tflops or peak_tflops(processor_name(device), plan.dtype)
        if peak is not None:
            seconds = 1 / row[OURS]["images_per_second"]
            row["mfu"] = model_flops_utilization(row["tflop_per_image"] * 1e12, seconds, peak)
    return row


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Speed of each row, and the stages of ours and torchvision one below the other."""
    cells, stages = [], []
    measured = {stage for row in rows for name in (OURS, THEIRS) for stage in row.get(name, {}).get("stages_ms") or ()}
    names = [stage for stage in STAGES if stage in measured]
    for row in rows:
        head = [row["variant"], row["dtype"], row["batch_size"]]
        if "error" in row:
            cells.append([*head, *[None] * 5, row["error"]])
            continue
        ours, theirs = row[OURS], row.get(THEIRS)
        their_speed = theirs["images_per_second"] if theirs else None
        ratio = ours["images_per_second"] / their_speed if their_speed else None
        mfu = 100 * row["mfu"] if "mfu" in row else None
        cells.append([*head, ours["images_per_second"], their_speed, ratio, mfu, ours["positives_per_image"], ""])
        for name in (OURS, THEIRS):
            if name in row and row[name]["stages_ms"]:
                stages.append([*head, name, *(row[name]["stages_ms"].get(stage) for stage in names)])
    print_table(["variant", "dtype", "batch", "img/s", "torchvision", "ratio", "MFU %", "positives/img", ""], cells)
    if stages:
        print()
        print_table(["variant", "dtype", "batch", "ms of a step", *names], stages)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], device: torch.device) -> None:
    """Put the rows into the file, beside those that it has of the same device."""
    here = {**machine(), "device": processor_name(device)}
    kept: list[Mapping[str, Any]] = []
    if path.exists():
        before = json.loads(path.read_text())
        if before["machine"]["device"] == here["device"]:
            new = {row["name"] for row in rows}
            kept = [row for row in before["rows"] if row["name"] not in new]
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": here, "date": time.strftime("%Y-%m-%d"), "rows": [*kept, *rows]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def suite_row(row: Mapping[str, Any], device: torch.device) -> Row:
    """A row in the form of benchmarks/run.py."""
    size = "x".join(map(str, row["image_size"]))
    case = f"{row['name']}, {size}, {row['positives']} positives"
    if "error" in row:
        return failed_row(AREA, "training", case, row["error"], device=device.type)
    samples = {name: row[name]["images_per_second_of_rounds"] for name in (OURS, THEIRS) if name in row}
    stages = {name: row[name]["stages_ms"] for name in samples if row[name]["stages_ms"]}
    more = {"stages_ms": stages, "mfu": row.get("mfu")}
    return make_row(AREA, "training", case, samples, unit="images/s", better="higher", device=device.type, **more)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config-file", default="configs/e2e_mask_rcnn_R_50_FPN_1x.yaml", metavar="FILE")
    add("--image-size", type=int, nargs=2, default=[800, 1344], metavar=("H", "W"))
    add("--batch-sizes", default="1,2,8,12,16", metavar="LIST")
    add("--dtypes", metavar="LIST", help=f"default: {DTYPES['cuda']}")
    add("--variants", metavar="LIST", help=f"as in tools/benchmark.py; default: {VARIANTS['cuda']}")
    add("--positives", type=int, default=64, metavar="N", help="positive regions of an image (default: %(default)s)")
    add("--only", default="", metavar="REGEX", help='rows whose name fits, such as "batch 12 bfloat16"')
    add("--part", default="1/1", metavar="I/N", help="the I-th of N parts of the rows")
    add("--rounds", type=int, default=4, metavar="N", help="turns of each network (default: %(default)s)")
    add("--steps", type=int, default=8, metavar="N", help="steps of a turn (default: %(default)s)")
    add("--warmup", type=int, default=10, metavar="N", help="steps before (default: %(default)s)")
    add("--stages", type=int, default=5, metavar="N", help="steps whose stages are measured (default: %(default)s)")
    add("--time-limit", type=float, default=540.0, metavar="S", help="begin no row after it (default: %(default)s)")
    add("--no-torchvision", action="store_true", help="ours alone")
    add("--no-flops", action="store_true", help="do not count operations")
    add("--peak-tflops", type=float, metavar="X", help="of the device, for MFU")
    add("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    add("--out", default=str(ROOT / "benchmarks" / "results" / "train_speed.json"), metavar="FILE")
    add("--rows", metavar="FILE", help="write the rows as benchmarks/run.py reads them, and not to --out")
    add("--peers", metavar="LIST", help="none leaves out torchvision")
    add("--peer", action="append", default=[], metavar="NAME=PATH", help="where a peer's checkout lies")
    add("--quick", action="store_true", help="a tiny form, to see whether everything runs")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys of ours")
    return parser


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print, write; gives the rows."""
    begin = time.perf_counter()
    args = make_parser().parse_args(arguments)
    if args.quick:
        args.image_size, args.rounds, args.steps, args.warmup, args.stages = [96, 128], 3, 1, 1, 1
        args.batch_sizes, args.positives = "1", 8
    device = torch.device(args.device)
    keep_pages()
    peers = find_torchvision(args)
    args.no_torchvision = THEIRS not in peers or peers[THEIRS].startswith("absent")
    if THEIRS in peers and args.no_torchvision:
        print(f"torchvision is {peers[THEIRS]}")
    rows: list[dict[str, Any]] = []
    plans = list_plans(args, device)
    for plan in plans:
        if rows and time.perf_counter() - begin > args.time_limit:
            print(f"{len(plans) - len(rows)} rows are left, from {name_of(plan)!r} on; see --part and --only")
            break
        with kept_settings(device):
            rows.append(measure_plan(plan, args, device))
        gc.collect()
        if not args.rows:
            write_rows(Path(args.out), rows, device)
        print(f"{time.perf_counter() - begin:6.0f} s  {name_of(plan)}", flush=True)
    print_rows(rows)
    if args.rows:
        left_out = [name_of(plan) for plan in plans[len(rows) :]]
        suite_rows = [suite_row(row, device) for row in rows]
        print(write_document(args.rows, suite_rows, machine=machine(), peers=peers, left_out=left_out))
    return rows


def find_torchvision(args: argparse.Namespace) -> dict[str, str]:
    """Its version, or why it is absent; empty where it is not wanted."""
    wanted = wanted_peers(args.peers)
    if args.no_torchvision or (wanted is not None and THEIRS not in wanted):
        return {}
    paths = peer_paths(args.peer)
    return find_peers({THEIRS: paths[THEIRS]} if THEIRS in paths else {}, [THEIRS])


if __name__ == "__main__":
    with user_errors():
        main()
