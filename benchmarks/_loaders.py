"""Whole loaders with worker processes: wall and CPU time of an image with its hand-over, and memory of a worker."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from benchmarks import _mappers as mappers
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.build import make_device_normalize
from maskrcnn_benchmark.utils.allocator import keep_pages

BATCH = 2
_WARM_UP = 6  # batches
_TICKS = os.sysconf("SC_CLK_TCK")


def make_config(folder: Path) -> CfgNode:
    """The published training transforms on the photos of ``folder``."""
    cfg = defaults.clone()
    entry = {"name": "photos", "img_dir": str(folder), "ann_file": str(folder / "instances.json")}
    cfg.merge_from_list(["DATASETS.CUSTOM", [entry], "DATASETS.TRAIN", ("photos",), "MODEL.DEVICE", "cpu"])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (mappers.SHORT,), "INPUT.MAX_SIZE_TRAIN", mappers.LONG])
    cfg.merge_from_list(["DATALOADER.SIZE_DIVISIBILITY", 32, "DATALOADER.BACKEND", "workers"])
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", BATCH, "MODEL.ROI_BOX_HEAD.NUM_CLASSES", 81])
    return cfg


def _cpu_seconds(process: int) -> float:
    """CPU time of a process and its threads so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _private_bytes(process: int) -> int:
    """Memory that a process shares with nobody."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def run(loader: DataLoader, use: Callable[[Any], Any]) -> dict[str, float]:
    """Takes all batches: images/s, CPU milliseconds of an image here and in the workers, peak memory of a worker."""
    iterator = iter(loader)
    for _ in range(_WARM_UP):
        use(next(iterator))
    workers = [process.pid for process in multiprocessing.active_children()]
    count, peak = 0, 0
    here, there, wall = time.process_time(), sum(map(_cpu_seconds, workers)), time.perf_counter()
    while count < (len(loader) - _WARM_UP) * BATCH:
        use(next(iterator))
        count += BATCH
        if count % (10 * BATCH) == 0:
            peak = max([peak, *map(_private_bytes, workers)])
    wall, here = time.perf_counter() - wall, time.process_time() - here
    there = sum(map(_cpu_seconds, workers)) - there
    return {
        "images_per_second": count / wall,
        "cpu_ms": 1e3 * (here + there) / count,
        "cpu_ms_of_the_training_process": 1e3 * here / count,
        "images_per_cpu_second": count / (here + there),
        "worker_mib": peak / 2**20,
    }


class _Mapped:
    """Records over and over again, through a mapper."""

    def __init__(self, records: Sequence[mappers.Record], mapper: Callable[[mappers.Record], Any], length: int) -> None:
        self.records, self.mapper, self.length = records, mapper, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.mapper(self.records[index % len(self.records)])


def _ours(folder: Path, num_workers: int, images: int, backend: str) -> dict[str, float]:
    """Our loader, up to the network's input."""
    cfg = make_config(folder)
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", num_workers, "SOLVER.MAX_ITER", images // BATCH + _WARM_UP])
    cfg.DATALOADER.BACKEND = backend
    normalize = make_device_normalize(cfg, torch.device("cpu"))
    loader, _ = make_data_loader(cfg, keep_pixels=True)
    return run(loader, lambda batch: normalize(batch[0], torch.contiguous_format))


def _theirs(records: Sequence[mappers.Record], num_workers: int, images: int) -> dict[str, float]:
    """The mapper of detectron2; as there, a batch is a list of samples, which the network pads and normalises."""
    dataset = _Mapped(records, mappers.detectron2_mapper()[1], images + _WARM_UP * BATCH)
    options = {"num_workers": num_workers, "persistent_workers": True}
    return run(DataLoader(dataset, batch_size=BATCH, collate_fn=list, **options), lambda batch: None)


def _in_new_process(call: Callable[..., dict[str, float]], arguments: tuple[Any, ...], pipe: Connection) -> None:
    keep_pages()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    pipe.send(call(*arguments))


def _measure(call: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """One run in a process of its own: what this one has allocated would count to the workers that it forks."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_in_new_process, args=(call, arguments, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def measure_loaders(
    folder: Path, records: Sequence[mappers.Record], *, images: int, rounds: int
) -> list[dict[str, Any]]:
    """Rows of our loaders and of detectron2's mapper in a DataLoader, each with one and two workers, in turns.

    Ours end in the network's input, detectron2's in single images of bytes.
    """
    variants: dict[tuple[str, int], tuple[Any, ...]] = {}
    for workers in (1, 2):
        variants["ours", workers] = (_ours, folder, workers, images, "workers")
        if importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali"):
            variants["ours, DALI on the CPU", workers] = (_ours, folder, workers, images, "dali")
        variants[mappers.detectron2_mapper()[0], workers] = (_theirs, records, workers, images)
    found: dict[tuple[str, int], list[dict[str, float]]] = {key: [] for key in variants}
    for _ in range(rounds):
        for key, call in variants.items():
            found[key].append(_measure(*call))
    return [
        {
            "name": key[0],
            "workers": key[1],
            **{figure: round(statistics.median(row[figure] for row in rows), 2) for figure in rows[0]},
        }
        for key, rows in found.items()
    ]
