"""The figures of a benchmark: measured, as one row, as a table."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from maskrcnn_benchmark.apps.benchmark_network import STAGES
from maskrcnn_benchmark.apps.benchmark_run import InferenceRun, TrainingRun
from maskrcnn_benchmark.engine.measure import PeakMemory, summarize_times
from maskrcnn_benchmark.engine.stages import StageRecorder, make_clock, mean_stages
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.flops import model_flops_utilization

PROFILED_STEPS = 3

_HEADERS = ("task", "variant", "dtype", "batch", "img/s", "p50 ms", "p99 ms", "MiB", "MFU %", "regions/img")


def measure(
    run: TrainingRun | InferenceRun, device: torch.device, *, warm_up: int, iterations: int, stage_iterations: int
) -> dict[str, Any]:
    """Run the steps of a run and give its figures; every process must call it.

    Speed is measured first, with nothing attached to the network; then the stages, in steps of their own.

    Args:
        run: has at least as many batches as the numbers say.
        device: of this process.
        warm_up: steps that are not measured.
        iterations: steps whose speed is measured.
        stage_iterations: steps whose stages are measured; 0 for none.

    Returns:
        images_per_second (all processes together), step_ms or latency_ms (mean and percentiles over all processes),
        seconds, peak_memory_mib (of the process that needs most), stages_ms, regions_per_image, and with counted
        operations tflop_per_image and achieved_tflops of a process.
    """
    for _ in range(warm_up):
        run.step()
    _wait(device)
    comm.synchronize()
    clock, memory = make_clock(device), PeakMemory(device)
    first_step = len(run.pixels)
    marks, num_images = [clock.mark()], 0
    begin = time.perf_counter()
    for _ in range(iterations):
        num_images += run.step()
        marks.append(clock.mark())
    _wait(device)
    seconds = time.perf_counter() - begin
    peak = memory.read()
    pixels = sum(run.pixels[first_step:]) / iterations
    if isinstance(run, InferenceRun):
        kind, times = "latency_ms", run.latencies[first_step:]
    else:
        kind, times = "step_ms", [clock.between(*pair) for pair in itertools.pairwise(marks)]
    stages = measure_stages(run, device, stage_iterations)
    regions = _regions_of_step(run, first_step)
    found = comm.all_gather((num_images, seconds, times, peak))
    images, all_seconds, all_times, peaks = zip(*found, strict=True)
    images_per_step = num_images / iterations
    figures: dict[str, Any] = {
        "images_per_second": sum(images) / max(all_seconds),
        "seconds": max(all_seconds),
        "iterations": iterations,
        kind: summarize_times([value for part in all_times for value in part]),
        "peak_memory_mib": max(peaks),
        "stages_ms": stages,
        "pixels_per_image": pixels / images_per_step,
        "regions_per_image": None if regions is None else regions / images_per_step,
    }
    if run.flops is not None:
        operations = run.flops.of_step(pixels=pixels, regions=run.flops.regions if regions is None else regions)
        figures["tflop_per_image"] = operations / images_per_step / 1e12
        figures["achieved_tflops"] = operations * iterations / max(all_seconds) / 1e12
        figures["forward_gflop"] = {name: value / 1e9 for name, value in run.flops.forward.items()}
    return figures


def measure_stages(run: TrainingRun | InferenceRun, device: torch.device, iterations: int) -> dict[str, float]:
    """Milliseconds of each stage of a step, the mean over some steps; nothing for no steps."""
    if not iterations:
        return {}
    recorder = StageRecorder(make_clock(device), mark_ranges=device.type == "cuda")
    run.watch(recorder)
    try:
        for _ in range(iterations):
            run.step()
    finally:
        run.unwatch()
    return mean_stages(recorder.read())


def write_trace(run: TrainingRun | InferenceRun, device: torch.device, path: Path) -> None:
    """Profile some steps and write torch's trace, for chrome://tracing or Perfetto; the stages are ranges in it."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities, record_shapes=True) as recorded:
        measure_stages(run, device, PROFILED_STEPS)
        _wait(device)
    if comm.is_main_process():
        recorded.export_chrome_trace(str(path))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _regions_of_step(run: TrainingRun | InferenceRun, first_step: int) -> float | None:
    """Mean number of the mask head's regions: detections of the measured steps, or positives of the watched ones."""
    counts = run.region_counts[first_step:] if isinstance(run, InferenceRun) else run.region_counts
    if counts:
        return sum(int(count) for count in counts) / len(counts)
    return run.flops.regions if run.flops is not None else None


def add_utilization(row: dict[str, Any], peak: float | None) -> None:
    """Put the MFU of a measured row beside its figures, where the peak of a process's device (TFLOP/s) is known."""
    if peak is not None and "achieved_tflops" in row:
        row["peak_tflops"] = peak
        row["mfu"] = model_flops_utilization(row["achieved_tflops"] * 1e12, 1.0, peak)


def format_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Two tables: speed, and milliseconds of each stage."""
    speed = [_HEADERS, *(_speed_cells(row) for row in rows)]
    present = {name for row in rows for name in row.get("stages_ms", {})}
    names = [name for name in STAGES if name in present]
    text = _format_table(speed)
    if names:
        stages: list[Sequence[str]] = [("ms of a step", "dtype", "batch", *names)]
        for row in rows:
            if row.get("stages_ms"):
                cells = (f"{row['stages_ms'][name]:.2f}" if name in row["stages_ms"] else "-" for name in names)
                stages.append((f"{row['task']} {row['variant']}", row["dtype"], str(row["batch_size"]), *cells))
        text += "\n" + _format_table(stages)
    return text


def _speed_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    head = (row["task"], row["variant"], row["dtype"], str(row["batch_size"]))
    if "error" in row:
        return (*head, row["error"], *[""] * (len(_HEADERS) - len(head) - 1))
    times = row.get("step_ms") or row["latency_ms"]
    regions = row["regions_per_image"]
    return (
        *head,
        f"{row['images_per_second']:.2f}",
        f"{times['p50']:.1f}",
        f"{times['p99']:.1f}",
        f"{row['peak_memory_mib']:.0f}",
        f"{100 * row['mfu']:.1f}" if "mfu" in row else "-",
        "-" if regions is None else f"{regions:.1f}",
    )


def _format_table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line}\n" for line in lines)
