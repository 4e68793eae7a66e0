"""Every op against the peers and against plain PyTorch, at the shapes of a training step at 800x1344.

    python benchmarks/ops.py                      all ops, on one and on two threads
    python benchmarks/ops.py roi_align nms        some of them
    python benchmarks/ops.py --threads 1 --rounds 15 --peers torchvision

All contenders of a row take turns in one process on the same tensors. One thread is timed by processor time, which
other load on the machine disturbs least, more threads by the clock on the wall. A peer that cannot be imported is
named; see benchmarks/_peers.py for where it is looked for.

Prints a table and writes benchmarks/results/ops.json (only when all ops ran, or with --write).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("MASKRCNN_REQUIRE_EXT", "1")  # a benchmark of the plain kernels against themselves says nothing

import torch

from benchmarks import _op_calls, _op_calls_boxes, _op_calls_masks
from benchmarks._op_calls import PLAIN, Call, Setting
from benchmarks._options import add_suite_options, peer_paths, wanted_peers
from benchmarks._peers import LOADERS, find_peers
from benchmarks._rows import OURS, failed_row, make_row, write_document
from benchmarks._timing import RESULTS, machine, measure, print_table
from maskrcnn_benchmark.utils.allocator import keep_pages

AREA = "ops"
PEERS = ("torchvision", "detectron2", "mmcv")
Calls = Callable[[Setting], Iterator[Call]]

# Every op of the library stands here once; tests/ops/test_library.py compares. The most important come first, because
# a time limit cuts the end.
CALLS: dict[tuple[str, ...], Calls] = {
    ("roi_align", "roi_align_backward"): _op_calls.roi_align_calls,
    ("match_boxes",): _op_calls_boxes.match_calls,
    ("batched_nms",): _op_calls_boxes.nms_calls,
    ("winograd_conv", "winograd_conv_backward"): _op_calls.winograd_calls,
    ("polygon_mask_targets",): _op_calls_masks.mask_target_calls,
    ("paste_masks", "paste_masks_rle"): _op_calls_masks.paste_calls,
    ("normalize_images",): _op_calls_masks.normalize_calls,
    ("roi_pool", "roi_pool_backward"): _op_calls.roi_pool_calls,
    ("sigmoid_focal_loss", "sigmoid_focal_loss_backward"): _op_calls_masks.focal_loss_calls,
    ("deform_conv", "deform_conv_backward"): _op_calls.deform_conv_calls,
    ("rasterize_polygons", "rle_areas", "rle_overlaps", "match_detections"): _op_calls_masks.coco_eval_calls,
}
# What is made of several ops, or is none.
COMPOSED: dict[tuple[str, ...], Calls] = {
    ("encode_boxes", "decode_boxes"): _op_calls_boxes.box_code_calls,
    ("stages",): _op_calls_boxes.stage_calls,
    ("roi_align_more",): _op_calls.roi_align_more_calls,
}


def list_calls(chosen: set[str], setting: Setting) -> Iterator[Call]:
    """The calls of the groups that hold a chosen name."""
    for names, make_calls in (CALLS | COMPOSED).items():
        if chosen.intersection(names):
            yield from make_calls(setting)


def prepare(
    call: Call, present: Mapping[str, str], threads: int = 1
) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """The contenders of a row, ours first, each tried once, and why others cannot take part.

    Plain PyTorch, the slowest by far, takes part on one thread only.
    """
    contenders, failed = {OURS: call.ours}, {}
    for name, make in call.others.items():
        if (name in LOADERS and name not in present) or (name == PLAIN and threads > 1):
            continue
        try:
            work = make()
            work()
        except Exception as error:  # a peer's fault must not end the benchmark
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            contenders[name] = work
    return contenders, failed


def measure_row(call: Call, threads: int, present: Mapping[str, str], args: argparse.Namespace, budget: float) -> Any:
    """A row in the common form."""
    device = getattr(args, "device", "cpu")
    clock = "cpu" if threads == 1 and device == "cpu" else "wall"
    torch.set_num_threads(threads)
    try:
        contenders, failed = prepare(call, present, threads)
        if device == "cuda":
            contenders = {name: _synchronized(work) for name, work in contenders.items()}
        with torch.no_grad():
            result = measure(
                contenders,
                rounds=args.rounds,
                budget=budget,
                clock=time.process_time if clock == "cpu" else time.perf_counter,
                shortest=0.0 if args.quick else 0.005,
            )
    except (RuntimeError, MemoryError) as error:
        return failed_row(AREA, call.op, call.case, str(error).splitlines()[0], threads=threads, device=device)
    memory = {name: None if each.peak_memory is None else each.peak_memory / 2**20 for name, each in result.items()}
    samples = {name: [value * 1e3 for value in each.times] for name, each in result.items()}
    more = {"failed": failed} if failed else {}
    keys = {"unit": "ms", "clock": clock, "threads": threads, "device": device, "peak_memory_mib": memory}
    return make_row(AREA, call.op, call.case, samples, **keys, **more)


def _synchronized(work: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        result = work()
        torch.cuda.synchronize()
        return result

    return run


def best_peer(row: Mapping[str, Any]) -> str | None:
    """The fastest contender besides ours and plain PyTorch."""
    peers = {name: ratio for name, ratio in row.get("ratios", {}).items() if name != PLAIN}
    return min(peers, key=peers.__getitem__) if peers else None


def show(rows: list[dict[str, Any]]) -> None:
    """The table."""
    headers = ("op", "case", "threads", "ours ms", "best peer", "peer ms", "peer / ours", "plain / ours", "ours MiB")
    cells = []
    for row in rows:
        if "error" in row:
            cells.append((row["name"], row["case"], row["threads"], None, row["error"], None, None, None, None))
            continue
        peer, ratios, results = best_peer(row), row["ratios"], row["results"]
        figures = (results[peer]["median"], ratios[peer]) if peer else (None, None)
        memory = results[OURS].get("peak_memory_mib")
        start = (row["name"], row["case"], row["threads"], results[OURS]["median"], peer or "-")
        cells.append((*start, *figures, ratios.get(PLAIN), memory))
    print_table(headers, cells)


def run(
    args: argparse.Namespace,
    chosen: set[str],
    present: Mapping[str, str],
    save: Callable[[list[Any], list[str]], Any] = lambda rows, left_out: None,
) -> tuple[list[Any], list[str]]:
    """Measures what the time limit leaves room for: rows, and what was left out; ``save`` gets both after each row."""
    started, rows, left_out = time.perf_counter(), [], []
    device = getattr(args, "device", "cpu")
    setting = Setting(args.quick, device)
    limit = args.time_limit or float("inf")
    # The quick form has as many calls, and its inputs are soon made.
    total = len(args.threads) * sum(1 for _ in list_calls(chosen, Setting(quick=True, device=device)))
    for call in list_calls(chosen, setting):
        for threads in args.threads:
            left = limit - (time.perf_counter() - started)
            budget = min(args.budget, 1.5 * left / max(total - len(rows), 1))
            if left <= 0:
                left_out.append(f"{call.op}, {call.case}, {threads} threads")
                continue
            rows.append(measure_row(call, threads, present, args, budget))
            print(f"{call.op}, {call.case}, {threads} threads: {rows[-1].get('ratios', 'failed')}", flush=True)
            save(rows, left_out)
    return rows, left_out


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    known = sorted(name for names in CALLS | COMPOSED for name in names)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", help=f"default: all of {', '.join(known)}")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=15.0, help="seconds a row at most, but 3 rounds")
    parser.add_argument("--write", action="store_true", help="write the JSON file for a part of the ops too")
    add_suite_options(parser, device=True)
    args = parser.parse_args()
    unknown = sorted(set(args.ops) - set(known))
    if unknown:
        parser.error(f"no op is called {', '.join(unknown)}; there are {', '.join(known)}")
    if args.quick:
        args.rounds, args.threads = min(args.rounds, 3), [1]
    args.complete = not args.ops or set(args.ops) == set(known)
    args.ops = set(args.ops or known)
    return args


def main() -> None:
    """Runs the chosen ops."""
    args = parse_arguments()
    keep_pages()  # as training and inference do; it serves all contenders alike
    wanted = wanted_peers(args.peers)
    peers = find_peers(peer_paths(args.peer), PEERS if wanted is None else wanted)
    present = {name: version for name, version in peers.items() if not version.startswith("absent")}
    out = args.out or (RESULTS / "ops.json" if (args.complete and not args.quick) or args.write else None)

    def save(rows: list[Any], left_out: list[str]) -> Path | None:
        return write_document(out, rows, machine=machine(), peers=peers, left_out=left_out) if out else None

    rows, left_out = run(args, args.ops, present, save)
    print()
    show(rows)
    for name, version in peers.items():
        print(f"{name}: {version}")
    path = save(rows, left_out)
    if path:
        print(f"\nWritten to {path}")


if __name__ == "__main__":
    main()
