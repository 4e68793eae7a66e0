"""How much memory the annotations of a data set take in all processes of a run together.

Run as a module it is one training process: it opens the data set, reads the objects of its share of an epoch in worker
processes, as training does, says so, and waits.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_IMAGES_PER_BATCH = 16


def added_memory(
    ann_file: Path, control: Path, *, samples: int, ranks: int, workers: int, start_method: str = "fork"
) -> dict[str, float]:
    """Proportional set size in MiB that one data set takes beyond another, summed over all processes of a run.

    Args:
        ann_file: its json.
        control: json of a data set so small that it counts for nothing; read as often.
        samples: of an epoch.
        ranks: training processes.
        workers: of each of them.
        start_method: of the workers.

    Returns:
        ``added``: the difference; ``mapped``: what of it is the packed file itself. Libraries do not count: their
        share depends on who else uses them.
    """
    with training_run(control, samples=16, ranks=1, workers=1, start_method=start_method):
        pass  # whoever compiles a module for the first time takes memory for it
    arguments = {"samples": samples, "ranks": ranks, "workers": workers, "start_method": start_method}
    with training_run(ann_file, **arguments) as pids:
        mapped, private = mapped_mib(pids), anonymous_mib(pids)
    with training_run(control, **arguments) as pids:
        private -= anonymous_mib(pids)
    return {"added": round(mapped + private, 1), "mapped": round(mapped, 1)}


@contextlib.contextmanager
def training_run(ann_file: Path, *, samples: int, ranks: int, workers: int, start_method: str) -> Iterator[list[int]]:
    """Process ids of a run that has gone through an epoch and waits."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.data.annotation_memory", str(ann_file), start_method]
    processes = [
        subprocess.Popen(
            [*command, *map(str, (samples, ranks, rank, workers))],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        for process in processes:
            line = process.stdout.readline()
            if line != "ready\n":
                raise RuntimeError(f"a training process ended: {line}")
        yield [pid for process in processes for pid in _with_descendants(process.pid)]
    finally:
        for process in processes:
            process.stdin.close()
        for process in processes:
            process.wait(60)


def _with_descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _with_descendants(int(child)))]


def anonymous_mib(pids: list[int]) -> float:
    """MiB of memory that belongs to no file, proportional."""
    fields = ("Pss_Anon:", "Pss_Shmem:")
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith(fields)) / 1024


def mapped_mib(pids: list[int]) -> float:
    """MiB of packed files, proportional."""
    total, counts = 0, False
    for line in (line for pid in pids for line in Path(f"/proc/{pid}/smaps").read_text().splitlines()):
        if "-" in line.split()[0]:
            counts = line.endswith(".packed")
        elif counts and line.startswith("Pss:"):
            total += int(line.split()[1])
    return total / 1024


class _Objects:
    """The objects of a data set, by the keys of another; returns nothing that would have to be sent."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Any) -> int:
        return len(self.dataset.load_targets(key.index % len(self.dataset)))


def _collect(worker: int) -> None:
    # A collection writes to every Python object, which takes a copy of what processes shared; whether one falls into
    # the epoch is chance.
    gc.collect()


def _train(ann_file: Path, start_method: str, samples: int, ranks: int, rank: int, workers: int) -> None:
    from torch.utils.data import DataLoader

    from maskrcnn_benchmark.data.datasets import COCODataset
    from maskrcnn_benchmark.data.samplers import DistributedSampler, GroupedBatchSampler, KeyedBatchSampler

    dataset = COCODataset(ann_file, ann_file.parent, remove_images_without_annotations=True)
    is_upright = np.resize(dataset.aspect_ratios() >= 1, samples)
    sampler = DistributedSampler(range(samples), ranks, rank)
    loader = DataLoader(
        _Objects(dataset),
        batch_sampler=KeyedBatchSampler(GroupedBatchSampler(sampler, is_upright, _IMAGES_PER_BATCH)),
        num_workers=workers,
        persistent_workers=True,
        worker_init_fn=_collect,
        multiprocessing_context=start_method,
        collate_fn=sum,
    )
    if not sum(loader):
        raise ValueError("no objects were read")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("ann_file", type=Path)
    parser.add_argument("start_method")
    parser.add_argument("numbers", nargs=4, type=int)
    given = parser.parse_args()
    _train(given.ann_file, given.start_method, *given.numbers)
