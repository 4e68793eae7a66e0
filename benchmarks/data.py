"""Images/s of a core on the way from JPEGs to the network, beside other programs' mappers, in turns on the same files.

    MASKRCNN_TEST_DATA=/data python benchmarks/data.py        # /data/coco_tiny: photos with a COCO json
    python benchmarks/data.py --data /datasets/coco --part val2017 --rounds 5

Three parts: the work of one thread without a loader, the decoders alone, and whole loaders with one and two workers and
their hand-over. Photos of 640x480 come from the data set; larger ones are these, enlarged. Prints tables and writes
benchmarks/results/data.json. Needs Pillow; detectron2, torchvision, DALI and simplejpeg take part where they are
installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # figures are of one core
os.environ.setdefault("MASKRCNN_REQUIRE_EXT", "1")

import cv2
import numpy as np
import torch
from PIL import Image
from yacs.config import CfgNode

from benchmarks import _mappers as mappers
from benchmarks._loaders import BATCH, make_config, measure_loaders
from benchmarks._timing import print_table, write_results
from maskrcnn_benchmark.data.build import make_dataset, make_device_normalize
from maskrcnn_benchmark.data.collate_batch import BatchCollator
from maskrcnn_benchmark.data.image_io import decode_image
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.utils.allocator import keep_pages

SIZES = ((640, 480), (1280, 960), (2048, 1536))  # width, height
OURS_BYTES, OURS_INPUT = "ours: bytes for the device", "ours: network input"
OPENCV_BYTES, OPENCV_INPUT = "OpenCV alone: bytes", "OpenCV alone: network input"
PIL_CHAIN = "original's and NVIDIA's chain (stand-in)"
# What these take elsewhere, images per CPU second at 640x480, and there PIL's resize alone.
PUBLISHED = {"detectron2": (37, 39), "original and NVIDIA": (24, 31), "pil_resize_ms": (16, 19)}


def write_photos(source: Path, part: str, size: tuple[int, int], count: int, folder: Path) -> list[mappers.Record]:
    """Photos of ``size`` with their annotations in ``folder`` and its ``instances.json``; the records of them.

    Landscape photos of 640x480 stay as they are in the file; for other sizes they are enlarged, quality 90.
    """
    document = json.loads((source / "annotations" / f"instances_{part}.json").read_text())
    chosen = [image for image in document["images"] if (image["width"], image["height"]) == SIZES[0]]
    annotated = {each["image_id"] for each in document["annotations"] if not each.get("iscrowd", 0)}
    chosen = [image for image in chosen if image["id"] in annotated][:count]
    if not chosen:
        raise SystemExit(f"{source}: {part} has no photo of 640x480 with objects")
    factor = size[0] / SIZES[0][0]
    folder.mkdir(parents=True)
    images, annotations, records = [], [], []
    for image in chosen:
        data = (source / part / image["file_name"]).read_bytes()
        if factor != 1:
            pixels = cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), size, None, 0, 0, 2)
            data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        (folder / image["file_name"]).write_bytes(data)
        image = image | {"width": size[0], "height": size[1]}
        own = [_scaled(each, factor) for each in document["annotations"] if each["image_id"] == image["id"]]
        own = [each for each in own if isinstance(each["segmentation"], list)]
        images.append(image)
        annotations += own
        records.append(image | {"file_name": str(folder / image["file_name"]), "annotations": own})
    document = {"images": images, "annotations": annotations, "categories": document["categories"]}
    (folder / "instances.json").write_text(json.dumps(document))
    return records


def _scaled(annotation: dict[str, Any], factor: float) -> dict[str, Any]:
    rings = annotation["segmentation"]
    if isinstance(rings, list):
        rings = [[value * factor for value in ring] for ring in rings]
    box = [value * factor for value in annotation["bbox"]]
    return annotation | {"bbox": box, "segmentation": rings, "area": annotation["area"] * factor**2}


def make_variants(cfg: CfgNode, records: Sequence[mappers.Record]) -> dict[str, Callable[[int], Any]]:
    """Name to a call that takes all records through one mapper, in a given epoch."""
    dataset, collate = make_dataset(cfg, "photos", is_train=True), BatchCollator(cfg.DATALOADER.SIZE_DIVISIBILITY)
    normalize = make_device_normalize(cfg, torch.device("cpu"))
    dataset.defer_images()  # as loaders do

    def ours(epoch: int, *, as_bytes: bool) -> None:
        for first in range(0, len(dataset), BATCH):
            keys = range(first, min(first + BATCH, len(dataset)))
            images, _, _ = collate([dataset[SampleKey(epoch, index)] for index in keys])
            if not as_bytes:
                normalize(images, torch.contiguous_format)

    def theirs(mapper: Callable[[mappers.Record], Any]) -> Callable[[int], None]:
        return lambda epoch: [mapper(record) for record in records] and None

    detectron2, torchvision = mappers.detectron2_mapper(), mappers.torchvision_mapper()
    return {
        OURS_BYTES: lambda epoch: ours(epoch, as_bytes=True),
        OURS_INPUT: lambda epoch: ours(epoch, as_bytes=False),
        OPENCV_BYTES: theirs(mappers.opencv_bytes),
        OPENCV_INPUT: theirs(mappers.opencv_input),
        detectron2[0]: theirs(detectron2[1]),
        PIL_CHAIN: theirs(mappers.torchvision_v1_stand_in),
        torchvision[0]: theirs(torchvision[1]),
    }


def make_decoders(records: Sequence[mappers.Record]) -> dict[str, Callable[[int], Any]]:
    """Name to a call that decodes all files."""
    files = [Path(record["file_name"]).read_bytes() for record in records]

    def pil(epoch: int) -> None:
        for record in records:
            np.asarray(Image.open(record["file_name"]).convert("RGB"))

    decoders = {
        "ours (OpenCV)": lambda epoch: [decode_image(data, name="") for data in files] and None,
        "PIL": pil,
    }
    if importlib.util.find_spec("simplejpeg") is not None:
        import simplejpeg

        if any((simplejpeg.decode_jpeg(data, "BGR") != decode_image(data, name="")).any() for data in files):
            raise SystemExit("simplejpeg decodes to other pixels than OpenCV")
        decoders["simplejpeg"] = lambda epoch: [simplejpeg.decode_jpeg(data, "BGR") for data in files] and None
    return decoders


def measure(variants: dict[str, Callable[[int], Any]], count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU and wall seconds of an image; the variants take turns, round after round."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    names = list(variants)
    for call in variants.values():
        call(0)
    for epoch in range(rounds):
        for name in names[epoch % len(names) :] + names[: epoch % len(names)]:
            cpu, wall = time.process_time(), time.perf_counter()
            variants[name](epoch)
            times[name].append(((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    return {
        name: {
            "cpu_ms": round(cpu * 1e3, 3),
            "wall_ms": round(wall * 1e3, 3),
            "images_per_cpu_second": round(1 / cpu, 1),
        }
        for name, (cpu, wall) in medians.items()
    }


def pil_resize_ms(record: mappers.Record) -> float:
    """CPU milliseconds of PIL's resize of a photo to the training size, by which machines are compared."""
    picture, times = Image.open(record["file_name"]).convert("RGB"), []
    for _ in range(15):
        begin = time.process_time()
        picture.resize((1066, 800), Image.Resampling.BILINEAR)
        times.append(time.process_time() - begin)
    return round(statistics.median(times) * 1e3, 2)


def with_ratios(figures: dict[str, dict[str, float]], own: str, **more: Any) -> list[dict[str, Any]]:
    """Rows with the factor by which ``own`` is faster."""
    reference = figures[own]["cpu_ms"]
    return [
        more | {"name": name} | row | {"ratio": round(row["cpu_ms"] / reference, 2)} for name, row in figures.items()
    ]


def print_rows(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """A table of rows with the same keys."""
    print(f"\n{title}")
    print_table(list(rows[0]), [list(row.values()) for row in rows])


def main() -> None:
    """Measures all three parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tiny = os.environ.get("MASKRCNN_TEST_DATA")
    parser.add_argument("--data", type=Path, default=Path(tiny, "coco_tiny") if tiny else None, help="COCO's layout")
    parser.add_argument("--part", default="train2017")
    parser.add_argument("--images", type=int, default=12, help="different photos")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    if args.data is None:
        parser.error("there are no photos: give --data, or set MASKRCNN_TEST_DATA")
    keep_pages()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    mapped, decoded, loaded = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for width, height in SIZES:
            photos = Path(folder, f"{width}x{height}")
            records = write_photos(args.data, args.part, (width, height), args.images, photos)
            cfg, size = make_config(photos), {"size": f"{width}x{height}"}
            mapped += with_ratios(measure(make_variants(cfg, records), len(records), args.rounds), OURS_BYTES, **size)
            decoded += with_ratios(measure(make_decoders(records), len(records), args.rounds), "ours (OpenCV)", **size)
            if (width, height) == SIZES[0]:
                resize = pil_resize_ms(records[0])
            rows = measure_loaders(photos, records, images=20 * len(records), rounds=max(args.rounds // 3, 1))
            loaded += [size | row for row in rows]
    print_rows("One thread, CPU time; ratio: how many times ours (bytes) takes", mapped)
    print_rows("Decoders alone", decoded)
    print_rows("Loaders with workers, hand-over included", loaded)
    print(f"\nPIL's resize of 640x480 alone: {resize} ms here; published figures and theirs: {PUBLISHED}")
    more = {"published": PUBLISHED, "pil_resize_ms": resize, "decoders": decoded, "loaders": loaded}
    print(f"Written to {write_results('data', mapped, **more)}")


if __name__ == "__main__":
    main()
