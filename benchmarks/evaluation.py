"""From predictions to figures: masks to run lengths, and COCO's metrics, against the ways others go.

    python benchmarks/evaluation.py                     both parts
    python benchmarks/evaluation.py --part metrics --images 500 --rounds 1
    python benchmarks/evaluation.py --write             also writes benchmarks/results/evaluation.json
    python benchmarks/evaluation.py --out rows.json     what benchmarks/run.py asks for, with 1,000 images

masks: 100 detections an image; against pasting each into an image of its own, as maskrcnn-benchmark's Masker does, and
encoding that with pycocotools. The texts must be equal.

metrics: boxes and masks, 7 objects and 100 detections an image of 80 classes, loading of the files included; against
pycocotools, and faster-coco-eval where it is installed. Each run is a process of its own, for its peak of memory. All
24 figures must be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("MASKRCNN_REQUIRE_EXT", "1")

import numpy as np
import torch
from pycocotools import mask as mask_utils

from benchmarks._coco_files import HEIGHT, NUM_DETECTIONS, WIDTH, make_files
from benchmarks._options import add_suite_options, peer_paths, wanted_peers
from benchmarks._peers import find_peers
from benchmarks._rows import OURS, Row, make_row, write_document
from benchmarks._timing import Measurement, machine, measure, print_table, write_results
from maskrcnn_benchmark.ops import paste_masks_rle

ENGINES = ("fast", "pycocotools", "faster-coco-eval")
DENSE = "dense paste, pycocotools encode"
AREA = "evaluation"
_SUITE_IMAGES = {"masks": 100, "metrics": 1000}
_QUICK_IMAGES = {"masks": 3, "metrics": 10}


# Part 1: masks.


def make_masks(num_images: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Smooth mask probabilities float32 [100, 28, 28] and boxes [100, 4] of each image."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(num_images):
        noise = torch.randn(NUM_DETECTIONS, 1, 7, 7, generator=generator)
        smooth = torch.nn.functional.interpolate(noise, size=(28, 28), mode="bicubic")[:, 0]
        y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
        masks = torch.sigmoid(4 * (0.8 - x**2 - y**2) + smooth)
        corner = torch.rand(NUM_DETECTIONS, 2, generator=generator) * torch.tensor([WIDTH * 0.8, HEIGHT * 0.8])
        side = torch.rand(NUM_DETECTIONS, 2, generator=generator) ** 2 * 300 + 8
        far = torch.minimum(corner + side, torch.tensor([WIDTH - 1.0, HEIGHT - 1.0]))
        found.append((masks, torch.cat([corner, far], dim=1)))
    return found


def dense_way(masks: torch.Tensor, boxes: torch.Tensor) -> list[bytes]:
    """One image a mask: the mask with a border is resized to its grown box, cut, put into an image, encoded."""
    side = masks.shape[-1]
    padded = torch.nn.functional.pad(masks, (1,) * 4)
    centre, half = (boxes[:, 2:] + boxes[:, :2]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5 * ((side + 2) / side)
    grown = torch.cat([centre - half, centre + half], dim=1).to(torch.int32)
    texts = []
    for mask, (x1, y1, x2, y2) in zip(padded, grown.tolist(), strict=True):
        size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        resized = torch.nn.functional.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)
        cut = resized[0, 0] > 0.5
        image = torch.zeros((HEIGHT, WIDTH), dtype=torch.uint8)
        left, right, top, bottom = max(x1, 0), min(x2 + 1, WIDTH), max(y1, 0), min(y2 + 1, HEIGHT)
        image[top:bottom, left:right] = cut[top - y1 : bottom - y1, left - x1 : right - x1]
        texts.append(mask_utils.encode(np.asfortranarray(image.numpy()[:, :, None]))[0]["counts"])
    return texts


def op_way(masks: torch.Tensor, boxes: torch.Tensor) -> list[bytes]:
    """The op: run lengths of each mask, from its box alone."""
    return [rle["counts"] for rle in paste_masks_rle(masks, boxes, image_size=(HEIGHT, WIDTH), threshold=0.5)]


def measure_masks(num_images: int, rounds: int) -> dict[str, Measurement]:
    """Both ways over all images."""
    images = make_masks(num_images)
    assert all(op_way(*image) == dense_way(*image) for image in images), "the two ways give different masks"
    variants = {
        name: lambda way=way: [len(way(*image)) for image in images]
        for name, way in {"op": op_way, DENSE: dense_way}.items()
    }
    return measure(variants, rounds=rounds, budget=600)


def run_masks(num_images: int, rounds: int) -> dict[str, Any]:
    """The first part's row."""
    result = measure_masks(num_images, rounds)
    return {
        "part": "masks",
        "images": num_images,
        "detections_per_image": NUM_DETECTIONS,
        "speed_up": round(result[DENSE].median / result["op"].median, 2),
        **{name: measurement.as_dict() for name, measurement in result.items()},
    }


# Part 2: metrics.


def evaluate_files(engine: str, folder: Path) -> dict[str, list[float]]:
    """The 12 figures of boxes and of masks, from the files."""
    truth = folder / "instances.json"
    figures = {}
    if engine == "fast":
        from maskrcnn_benchmark.evaluation.columns import Detections
        from maskrcnn_benchmark.evaluation.fast_coco import FastCocoEval
        from maskrcnn_benchmark.evaluation.ground_truth import read_coco

        coco = read_coco(truth)
        make = lambda kind: FastCocoEval(coco, Detections.read(folder / f"{kind}.json", kind))  # noqa: E731
    elif engine == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        coco = COCO(str(truth))
        make = lambda kind: COCOeval(coco, coco.loadRes(str(folder / f"{kind}.json")), kind)  # noqa: E731
    else:
        from faster_coco_eval import COCO, COCOeval_faster

        coco = COCO(str(truth))
        make = lambda kind: COCOeval_faster(coco, coco.loadRes(str(folder / f"{kind}.json")), kind)  # noqa: E731
    for kind in ("bbox", "segm"):
        evaluation = make(kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        figures[kind] = [float(value) for value in evaluation.stats[:12]]
        del evaluation
    return figures


def work(engine: str, folder: Path) -> None:
    """What each process does: evaluate once, tell figures, time and memory on the last line."""
    if engine == "faster-coco-eval":
        import faster_coco_eval  # noqa: F401
    begin, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        figures = evaluate_files(engine, folder)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
    peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(json.dumps({"figures": figures, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_kib": int(peak)}))


def run_engines(num_images: int, rounds: int, engines: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Run each engine in turn, in processes of their own; what each of them told, turn by turn."""
    outcomes: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), num_images)
        for _ in range(rounds):
            for name in engines:
                command = [sys.executable, __file__, "--worker", name, folder]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
                outcomes[name].append(json.loads(done.stdout.splitlines()[-1]))
    expected = outcomes["pycocotools"][0]["figures"] if "pycocotools" in outcomes else None
    for name, found in outcomes.items() if expected else ():
        own = found[0]["figures"]
        # Ours to the bit; faster-coco-eval adds up in another order.
        same = own == expected if name == "fast" else all(np.allclose(own[k], expected[k], 0, 1e-12) for k in expected)
        assert same, f"{name} gives other figures:\n{own}\n{expected}"
    return outcomes


def run_metrics(num_images: int, rounds: int) -> dict[str, Any]:
    """The second part's row."""
    engines = [name for name in ENGINES if name != ENGINES[2] or importlib.util.find_spec("faster_coco_eval")]
    outcomes = run_engines(num_images, rounds, engines)
    expected = outcomes["pycocotools"][0]["figures"]
    median = {
        name: {key: statistics.median(run[key] for run in found) for key in ("seconds", "cpu_seconds", "peak_kib")}
        for name, found in outcomes.items()
    }
    row = {"part": "metrics", "images": num_images, "detections_per_image": NUM_DETECTIONS, "figures": expected}
    for name, own in median.items():
        row[name] = {
            "median_s": round(own["seconds"], 3),
            "median_cpu_s": round(own["cpu_seconds"], 3),
            "rounds": rounds,
            "peak_memory_mib": round(own["peak_kib"] / 1024, 1),
        }
    for key, field in (("speed_up", "seconds"), ("cpu_speed_up", "cpu_seconds")):
        row[key] = {
            name: round(own[field] / median["fast"][field], 2) for name, own in median.items() if name != "fast"
        }
    return row


def report(row: dict[str, Any]) -> None:
    """Print one part."""
    if row["part"] == "masks":
        print(f"\nmasks to run lengths, {row['images']} images of {NUM_DETECTIONS}: {row['speed_up']} times faster")
        cells = [(name, own["median_ms"], own["peak_memory_mib"]) for name, own in row.items() if isinstance(own, dict)]
        print_table(("way", "median ms", "peak MiB"), cells)
        return
    print(f"\nCOCO's metrics, {row['images']} images of {NUM_DETECTIONS}, boxes and masks, loading included")
    cells = [
        (name, own["median_s"], own["median_cpu_s"], own["peak_memory_mib"], row["speed_up"].get(name, 1.0))
        for name, own in row.items()
        if name in ENGINES
    ]
    print_table(("engine", "s", "CPU s", "peak MiB", "fast is times faster"), cells)


def suite_rows(peers: Sequence[str], images: Mapping[str, int], rounds: int) -> Iterator[Row]:
    """The rows of both parts in the suite's form.

    Args:
        peers: of those in ENGINES that are here.
        images: of each part.
        rounds: turns.
    """
    case = f"{images['masks']} images, {NUM_DETECTIONS} masks each"
    if "pycocotools" in peers:
        found = {OURS: "op", "pycocotools": DENSE}
        result = measure_masks(images["masks"], rounds)
        samples = {name: result[way].times for name, way in found.items()}
        yield make_row(AREA, "masks to run lengths", case, samples, unit="s", threads=torch.get_num_threads())
    outcomes = run_engines(images["metrics"], rounds, ["fast", *peers])
    outcomes = {OURS if name == "fast" else name: runs for name, runs in outcomes.items()}
    case = f"{images['metrics']} images, {NUM_DETECTIONS} detections each, loading included"
    for name, field, unit, scale in (
        ("CPU s", "cpu_seconds", "s", 1),
        ("wall s", "seconds", "s", 1),
        ("peak memory", "peak_kib", "MiB", 1024),
    ):
        samples = {who: [run[field] / scale for run in runs] for who, runs in outcomes.items()}
        clock = {"CPU s": "cpu", "wall s": "wall"}.get(name, "none")
        yield make_row(AREA, f"COCO's metrics, {name}", case, samples, unit=unit, clock=clock)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_suite_options(parser)
    parser.add_argument("--part", choices=("masks", "metrics"), help="only this one")
    parser.add_argument("--images", type=int, default=0, help="of each part; default 200 for masks, 5000 for metrics")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/evaluation.json")
    parser.add_argument("--worker", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker[0], Path(arguments.worker[1]))
        return
    if arguments.out:
        wanted = wanted_peers(arguments.peers)
        names = [name for name in ENGINES[1:] if wanted is None or name in wanted]
        peers = find_peers({k: v for k, v in peer_paths(arguments.peer).items() if k in ENGINES}, names)
        here = [name for name, version in peers.items() if not version.startswith("absent")]
        images = _QUICK_IMAGES if arguments.quick else _SUITE_IMAGES
        if arguments.time_limit is not None and not arguments.quick:
            # Three engines, three turns: half a second an image on a slow machine, pycocotools' most of it.
            images = images | {"metrics": min(images["metrics"], max(int(5 * arguments.time_limit), 20))}
        rows = list(suite_rows(here, images, arguments.rounds))
        print(write_document(arguments.out, rows, machine=machine(), peers=peers))
        return
    rows = []
    if arguments.part != "metrics":
        rows.append(run_masks(arguments.images or 200, arguments.rounds))
        report(rows[-1])
    if arguments.part != "masks":
        rows.append(run_metrics(arguments.images or 5000, arguments.rounds))
        report(rows[-1])
    if arguments.write:
        print(write_results("evaluation", rows))


if __name__ == "__main__":
    main()
