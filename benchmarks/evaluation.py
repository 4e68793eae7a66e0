"""From predictions to figures: masks to run lengths, and COCO's metrics, against the ways others go.

    python benchmarks/evaluation.py                     both parts
    python benchmarks/evaluation.py --part metrics --images 500 --rounds 1
    python benchmarks/evaluation.py --write             also writes benchmarks/results/evaluation.json

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
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("MASKRCNN_REQUIRE_EXT", "1")

import numpy as np
import orjson
import torch
from pycocotools import mask as mask_utils

from benchmarks._timing import measure, print_table, write_results
from maskrcnn_benchmark.ops import paste_masks_rle, rasterize_polygons

NUM_CLASSES, NUM_OBJECTS, NUM_DETECTIONS = 80, 7, 100
HEIGHT, WIDTH = 480, 640
ENGINES = ("fast", "pycocotools", "faster-coco-eval")


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


def run_masks(num_images: int, rounds: int) -> dict[str, Any]:
    """Measure both ways over all images."""
    images = make_masks(num_images)
    assert all(op_way(*image) == dense_way(*image) for image in images), "the two ways give different masks"
    variants = {
        name: lambda way=way: [len(way(*image)) for image in images]
        for name, way in {"op": op_way, "dense paste, pycocotools encode": dense_way}.items()
    }
    result = measure(variants, rounds=rounds, budget=600)
    ours, theirs = result.values()
    return {
        "part": "masks",
        "images": num_images,
        "detections_per_image": NUM_DETECTIONS,
        "speed_up": round(theirs.median / ours.median, 2),
        **{name: measurement.as_dict() for name, measurement in result.items()},
    }


# Part 2: metrics.


def make_files(folder: Path, num_images: int) -> None:
    """instances.json, bbox.json and segm.json: blobs, and detections of which two in three are moved blobs."""
    random = np.random.RandomState(0)
    angles = np.arange(24) * (2 * np.pi / 24)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    images, annotations, boxes, masks = [], [], [], []
    for number in range(1, num_images + 1):
        images.append({"id": number, "height": HEIGHT, "width": WIDTH, "file_name": f"{number}.jpg"})
        centres = random.rand(NUM_OBJECTS, 2) * (WIDTH, HEIGHT)
        radii = np.exp(random.rand(NUM_OBJECTS, 2) * 3 + 2)
        labels = random.randint(1, NUM_CLASSES + 1, NUM_OBJECTS)
        rings = centres[:, None] + unit * radii[:, None] * (1 + 0.06 * random.randn(NUM_OBJECTS, 24, 1))
        rings = rings.clip(0, (WIDTH, HEIGHT)).round(2)
        areas = _areas(rings)
        for ring, label, area in zip(rings, labels.tolist(), areas.tolist(), strict=True):
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": label, "bbox": _box(ring)}
            annotation |= {"area": area, "iscrowd": int(random.rand() < 0.01), "segmentation": [ring.ravel().tolist()]}
            annotations.append(annotation)
        source = random.randint(NUM_OBJECTS, size=NUM_DETECTIONS)
        is_near = random.rand(NUM_DETECTIONS) < 0.67
        moved = np.where(is_near[:, None], centres[source], random.rand(NUM_DETECTIONS, 2) * (WIDTH, HEIGHT))
        spread = np.exp(random.randn(NUM_DETECTIONS, 2) * 0.15)
        shapes = moved[:, None] + unit * (radii[source] * spread)[:, None]
        shapes = (shapes * (1 + 0.05 * random.randn(NUM_DETECTIONS, 24, 1))).clip(0, (WIDTH, HEIGHT))
        own = np.where(random.rand(NUM_DETECTIONS) < 0.8, labels[source], random.randint(1, 81, NUM_DETECTIONS))
        scores = (is_near * 0.4 + random.rand(NUM_DETECTIONS) * 0.6).round(4).tolist()
        for shape, label, score, text in zip(shapes, own.tolist(), scores, _encode(shapes), strict=True):
            common = {"image_id": number, "category_id": label, "score": score}
            boxes.append({**common, "bbox": _box(shape)})
            masks.append({**common, "segmentation": {"size": [HEIGHT, WIDTH], "counts": text}})
    categories = [{"id": number, "name": str(number)} for number in range(1, NUM_CLASSES + 1)]
    truth = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    for name, content in (("instances", truth), ("bbox", boxes), ("segm", masks)):
        (folder / f"{name}.json").write_bytes(orjson.dumps(content))


def _box(ring: np.ndarray) -> list[float]:
    low = ring.min(axis=0)
    return [*low.round(2).tolist(), *(ring.max(axis=0) - low).round(2).tolist()]


def _areas(rings: np.ndarray) -> np.ndarray:
    x, y = rings[..., 0], rings[..., 1]
    return np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1) / 2).round(2)


def _encode(rings: np.ndarray) -> list[str]:
    count, vertices = rings.shape[:2]
    offsets = torch.arange(count + 1)
    sizes = torch.tensor([[HEIGHT, WIDTH]]).expand(count, 2).contiguous()
    coords = torch.from_numpy(rings.reshape(-1, 2))
    text, ends = rasterize_polygons(coords, offsets * vertices, offsets, sizes)
    whole, bounds = text.numpy().tobytes().decode(), ends.tolist()
    return [whole[a:b] for a, b in pairwise(bounds)]


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


def run_metrics(num_images: int, rounds: int) -> dict[str, Any]:
    """Run each engine in turn, in processes of their own."""
    engines = [name for name in ENGINES if name != ENGINES[2] or importlib.util.find_spec("faster_coco_eval")]
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
    expected = outcomes["pycocotools"][0]["figures"]
    for name, found in outcomes.items():
        own = found[0]["figures"]
        # Ours to the bit; faster-coco-eval adds up in another order.
        same = own == expected if name == "fast" else all(np.allclose(own[k], expected[k], 0, 1e-12) for k in expected)
        assert same, f"{name} gives other figures:\n{own}\n{expected}"
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


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("masks", "metrics"), help="only this one")
    parser.add_argument("--images", type=int, default=0, help="of each part; default 200 for masks, 5000 for metrics")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/evaluation.json")
    parser.add_argument("--worker", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker[0], Path(arguments.worker[1]))
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
