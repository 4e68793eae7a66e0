"""Measure the speed of training and inference: what tools/benchmark.py does."""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.benchmark_build import Workload, build_inference_run, build_training_run
from maskrcnn_benchmark.apps.benchmark_plan import Plan, build_plan, kept_settings, split_list
from maskrcnn_benchmark.apps.benchmark_report import PROFILED_STEPS, add_utilization, format_rows, measure, write_trace
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.options.benchmark import make_parser as make_parser
from maskrcnn_benchmark.apps.start import build_config, build_device, make_deterministic
from maskrcnn_benchmark.engine.measure import describe_machine, processor_name
from maskrcnn_benchmark.tracking import DLLoggerSink
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.allocator import keep_pages
from maskrcnn_benchmark.utils.env import setup_environment
from maskrcnn_benchmark.utils.flops import peak_tflops
from maskrcnn_benchmark.utils.logger import setup_logger

logger = logging.getLogger("maskrcnn_benchmark.benchmark")


@user_errors()
def main(args: argparse.Namespace, cfg: CfgNode) -> list[dict[str, Any]]:
    """Run the program; gives the rows.

    Args:
        args: parsed options of ``make_parser``.
        cfg: the config tree with its defaults; stays as it is.
    """
    setup_environment()
    keep_pages()
    cfg = build_config(args, cfg)
    device, notice = build_device(args, cfg)
    comm.init_process_group(device)
    setup_logger("maskrcnn_benchmark", "", comm.get_rank())
    if notice:
        logger.warning(notice)
    choices = itertools.product(*(split_list(text) for text in (args.task, args.variants)), *_sizes_and_types(args))
    plans = [build_plan(cfg, args, device, *choice) for choice in choices]
    _check_determinism(plans)
    rows = [run_plan(plan, args, device, trace=_trace_path(args.profile, plans, plan)) for plan in plans]
    if comm.is_main_process():
        sys.stdout.write(format_rows(rows))
        _write_files(rows, args, device)
    comm.destroy_process_group()
    return rows


def _sizes_and_types(args: argparse.Namespace) -> tuple[Iterable[int | None], Iterable[str | None]]:
    try:
        sizes = [int(size) for size in split_list(args.batch_sizes or "")]
    except ValueError as error:
        raise ValueError(f"--batch-sizes must be numbers such as 1,2,8, got {args.batch_sizes!r}") from error
    return sizes or [None], split_list(args.dtypes or "") or [None]


def _check_determinism(plans: Sequence[Plan]) -> None:
    if len({plan.is_deterministic for plan in plans}) > 1:
        raise ValueError(
            "deterministic variants need a command of their own: cuBLAS keeps the workspace that it began with"
        )


def _trace_path(wanted: str | None, plans: Sequence[Plan], plan: Plan) -> Path | None:
    if wanted is None or len(plans) == 1:
        return Path(wanted) if wanted else None
    path = Path(wanted)
    return path.with_name(f"{path.stem}_{plans.index(plan)}{path.suffix}")


def run_plan(plan: Plan, args: argparse.Namespace, device: torch.device, *, trace: Path | None) -> dict[str, Any]:
    """Measure one row.

    Args:
        plan: what to measure.
        args: options of ``make_parser``.
        device: of this process.
        trace: where a profile goes; None for none.
    """
    row = {**plan.describe(), "world_size": comm.get_world_size(), "synthetic": args.synthetic}
    with kept_settings(device):
        make_deterministic(plan.cfg, device)
        # in a function of its own, which has let go of the network when the memory is given back
        row |= _measure_plan(plan, args, device, trace)
    if "error" not in row:
        add_utilization(row, args.peak_tflops or peak_tflops(processor_name(device), row["dtype"]))
        _log_published_line(row)
    return row


def _measure_plan(plan: Plan, args: argparse.Namespace, device: torch.device, trace: Path | None) -> dict[str, Any]:
    workload = Workload(
        synthetic=args.synthetic,
        image_size=tuple(args.image_size) if args.image_size else None,
        positives=args.positives,
        count_flops=not args.no_flops,
        opts=tuple(args.opts),
    )
    build = build_training_run if plan.task == "train" else build_inference_run
    try:
        run = build(plan.cfg, device, workload, length=plan.num_steps + (PROFILED_STEPS if trace else 0))
        figures = measure(
            run, device, warm_up=plan.warm_up, iterations=plan.iterations, stage_iterations=plan.stage_iterations
        )
        if trace is not None:
            write_trace(run, device, trace)
    except torch.OutOfMemoryError:
        if comm.get_world_size() > 1:
            raise  # the other processes are waiting for this one
        return {"error": "out of memory"}
    return {"dtype": _name_dtype(run.precision.dtype, plan.dtype), **figures}


def _name_dtype(used: torch.dtype, wanted: str) -> str:
    return wanted if used == torch.float32 and wanted == "tf32" else str(used).removeprefix("torch.")


def _log_published_line(row: Mapping[str, Any]) -> None:
    """The line that scripts read the speed from, as training and inference write it."""
    seconds, world = row["seconds"], row["world_size"]
    duration = datetime.timedelta(seconds=seconds)
    if row["task"] == "inference":
        per_image = world / row["images_per_second"]
        text = "Total inference time: %s (%.5f s / img per device, on %d devices)"
        logging.getLogger("maskrcnn_benchmark.inference").info(text, duration, per_image, world)
    else:
        per_step = row["batch_size"] * world / row["images_per_second"]
        logging.getLogger("maskrcnn_benchmark.trainer").info(
            "Total training time: %s (%.4f s / it)", duration, per_step
        )


def _write_files(rows: Sequence[Mapping[str, Any]], args: argparse.Namespace, device: torch.device) -> None:
    if args.out:
        arguments = {name: value for name, value in vars(args).items() if value is not None}
        document = {
            "date": datetime.date.today().isoformat(),
            "machine": describe_machine(device),
            "arguments": arguments,
            "rows": rows,
        }
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(document, indent=1) + "\n")
    last = rows[-1]
    if args.json_summary and "error" not in last:
        _summarize(last, DLLoggerSink(args.json_summary, None))


def _summarize(row: Mapping[str, Any], sink: DLLoggerSink) -> None:
    if row["task"] == "train":
        figures = {"e2e_train_time": row["seconds"], "train_perf_fps": row["images_per_second"]}
    else:
        latency = row["latency_ms"]
        figures = {"e2e_infer_time": row["seconds"], "inference_perf_fps": row["images_per_second"]}
        figures["latency_avg"] = latency["mean"] / 1e3
        figures |= {f"latency_{percent}": latency[f"p{percent}"] / 1e3 for percent in (90, 95, 99)}
    for name in figures:
        sink.metadata(name, {"unit": "images/s" if name.endswith("fps") else "s"})
    sink.log((), figures)
    sink.close()
