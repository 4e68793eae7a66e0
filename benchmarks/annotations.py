"""How long a COCO-size annotation file takes to open, and how much memory it takes, beside pycocotools.

The file has as many images, instances and vertices as COCO's training set of 2017 and is made by formula. The first
opening parses and packs it; from then on it is mapped. pycocotools' COCO() parses it each time. Each is measured in a
fresh process, in turn, with the files in the kernel's cache. Then a run of several training processes, each with
several workers, reads all objects once, and the memory that the annotations take in all of them is added up.

    python benchmarks/annotations.py                          the whole table: 1 GB of disk, ten minutes
    python benchmarks/annotations.py --images 5000 --instances 36000 --ranks 2 --workers 2

Prints a table and writes benchmarks/results/annotations.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._timing import print_table, write_results
from maskrcnn_benchmark.data.datasets.packed.cache import content_hash
from tests.data.annotation_memory import added_memory
from tests.data.coco_size import NUM_IMAGES, NUM_INSTANCES, write_coco_json

_ROOT = Path(__file__).resolve().parent.parent
# Each is run in a process of its own, which then says how long it took and how far its memory rose.
_CALLS = {
    "first opening": "from maskrcnn_benchmark.data.datasets import COCODataset as open_",
    "opening from the cache": "from maskrcnn_benchmark.data.datasets import COCODataset as open_",
    "opening from the cache, json hashed": "from maskrcnn_benchmark.data.datasets import COCODataset as open_",
    "pycocotools COCO()": "from pycocotools.coco import COCO as open_",
    "orjson.loads": "import orjson; open_ = lambda path: orjson.loads(open(path, 'rb').read())",
    "json.load": "import json; open_ = lambda path: json.load(open(path, 'rb'))",
}
_PROGRAM = """
import json, sys, time
sys.stdout = sys.stderr
from benchmarks._timing import _status_bytes
{imports}
before, wall, cpu = _status_bytes("VmRSS"), time.perf_counter(), time.process_time()
opened = open_({arguments})
figures = [time.perf_counter() - wall, time.process_time() - cpu, (_status_bytes("VmHWM") - before) / 2**20]
sys.__stdout__.write(json.dumps(figures))
sys.__stdout__.flush()
import os
os._exit(0)
"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=NUM_IMAGES)
    parser.add_argument("--instances", type=int, default=NUM_INSTANCES)
    parser.add_argument("--ranks", type=int, default=8, help="training processes")
    parser.add_argument("--workers", type=int, default=4, help="of each training process")
    parser.add_argument("--start-methods", nargs="+", default=["fork"], help="of the workers: fork, spawn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the files go; a temporary folder by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        measure_all(args, Path(folder))


def measure_all(args: argparse.Namespace, folder: Path) -> None:
    """Measure everything on a file in ``folder``."""
    path, control = folder / "instances.json", folder / "control.json"
    write_coco_json(path, num_images=args.images, num_instances=args.instances)
    write_coco_json(control, num_images=16, num_instances=60)
    figures: dict[str, list[list[float]]] = {name: [] for name in _CALLS}
    for _ in range(args.rounds):
        for name in _CALLS:
            figures[name].append(_measure(name, path))
    rows = [_row(name, rounds) for name, rounds in figures.items()]
    print_table([*rows[0]], [[*row.values()] for row in rows])
    memory = {}
    for start_method in args.start_methods:
        memory[start_method] = added_memory(
            path, control, samples=args.images, ranks=args.ranks, workers=args.workers, start_method=start_method
        )
        print(f"{args.ranks} x {args.workers} processes, {start_method}: {memory[start_method]} MiB")
    (packed,) = folder.glob("instances.*.packed")
    write_results(
        "annotations",
        rows,
        images=args.images,
        instances=args.instances,
        json_mib=round(path.stat().st_size / 2**20, 1),
        packed_mib=round(packed.stat().st_size / 2**20, 1),
        ranks=args.ranks,
        workers=args.workers,
        added_memory_mib=memory,
    )


def _measure(name: str, path: Path) -> list[float]:
    """Seconds, CPU seconds and MiB of one call in a process of its own."""
    if name == "first opening":
        for cache in (*path.parent.glob("instances.*.packed"), *path.parent.glob(".*.stamp")):
            cache.unlink()
    elif name.endswith("hashed"):
        for stamp in path.parent.glob(".*.stamp"):
            stamp.unlink()
    elif "opening" in name:
        content_hash(path)  # leaves a stamp, now that the file is no longer new
    arguments = f"{str(path)!r}, {str(path.parent)!r}, True" if "opening" in name else repr(str(path))
    program = _PROGRAM.format(imports=_CALLS[name], arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _row(name: str, rounds: list[list[float]]) -> dict[str, Any]:
    seconds, cpu_seconds, memory = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {
        "what": name,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "peak_memory_mib": round(memory),
    }


if __name__ == "__main__":
    main()
