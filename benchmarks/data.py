"""Images/s of a core on the way from JPEGs to the network, beside other programs' mappers, in turns on the same files.

    MASKRCNN_TEST_DATA=/data python benchmarks/data.py        # /data/coco_tiny: photos with a COCO json
    python benchmarks/data.py --data /datasets/coco --part val2017 --rounds 5
    python benchmarks/data.py --out rows.json       what benchmarks/run.py asks for: the first part, without --data too

Three parts: the work of one thread without a loader, the decoders alone, and whole loaders with one and two workers and
their hand-over. Photos of 640x480 come from the data set; larger ones are these, enlarged. Prints tables and writes
benchmarks/results/data.json. Needs Pillow; detectron2, torchvision, DALI and simplejpeg take part where they are
installed.
"""

from __future__ import annotations

import argparse
import importlib.util
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
from benchmarks._options import add_suite_options, peer_paths, wanted_peers
from benchmarks._peers import find_peers
from benchmarks._photos import SIZES, invent_photos, write_photos
from benchmarks._rows import OURS, Row, make_row, write_document
from benchmarks._timing import machine, print_table, write_results
from maskrcnn_benchmark.data.build import make_dataset, make_device_normalize
from maskrcnn_benchmark.data.collate_batch import BatchCollator
from maskrcnn_benchmark.data.image_io import decode_image
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.utils.allocator import keep_pages

AREA = "data"
OURS_BYTES, OURS_INPUT = "ours: bytes for the device", "ours: network input"
OPENCV_BYTES, OPENCV_INPUT = "OpenCV alone: bytes", "OpenCV alone: network input"
PIL_CHAIN = "original's and NVIDIA's chain (stand-in)"
# What these take elsewhere, images per CPU second at 640x480, and there PIL's resize alone.
PUBLISHED = {"detectron2": (37, 39), "original and NVIDIA": (24, 31), "pil_resize_ms": (16, 19)}


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


def take_turns(
    variants: dict[str, Callable[[int], Any]], count: int, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of an image, turn by turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    names = list(variants)
    for call in variants.values():
        call(0)
    for epoch in range(rounds):
        for name in names[epoch % len(names) :] + names[: epoch % len(names)]:
            cpu, wall = time.process_time(), time.perf_counter()
            variants[name](epoch)
            times[name].append(((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count))
    return times


def measure(variants: dict[str, Callable[[int], Any]], count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU and wall seconds of an image; the variants take turns, round after round."""
    times = take_turns(variants, count, rounds)
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


def suite_rows(args: argparse.Namespace, folder: Path, begin: float) -> tuple[list[Row], list[str]]:
    """The rows of one thread in the suite's form, and the sizes for which no time was left."""
    source, part, words = args.data, args.part, "photos"
    if source is None:
        source, part, words = folder / "invented", "photos", "invented photos"
        invent_photos(args.images, source)
    count, rounds = (2, 3) if args.quick else (args.images, args.rounds)
    rows: list[Row] = []
    left_out: list[str] = []
    for width, height in SIZES[:1] if args.quick else SIZES:
        if args.time_limit is not None and time.perf_counter() - begin > 0.6 * args.time_limit:
            left_out.append(f"{width}x{height}")
            continue
        photos = folder / f"{width}x{height}"
        records = write_photos(source, part, (width, height), count, photos)
        times = take_turns(make_variants(make_config(photos), records), len(records), rounds)
        samples = {name: [1e3 * cpu for cpu, _ in turns] for name, turns in times.items()}
        case = f"{width}x{height}, {words}"
        to_bytes = {name: values for name, values in samples.items() if name in (OURS_BYTES, OPENCV_BYTES)}
        for name, values in samples.items():
            if name not in (OURS_BYTES, OURS_INPUT, OPENCV_BYTES, OPENCV_INPUT):
                to_bytes[name] = values
        to_input = {name: samples[name] for name in (OURS_INPUT, OPENCV_INPUT, PIL_CHAIN)}
        for name, chosen in (("file to bytes for the device", to_bytes), ("file to network input", to_input)):
            named = {_contender(each): values for each, values in chosen.items()}
            rows.append(make_row(AREA, name, case, named, unit="ms an image", clock="cpu", threads=1))
    return rows, left_out


_PEERS = {"detectron2's mapper": "detectron2", "torchvision v2": "torchvision"}  # themselves, not stand-ins


def _contender(variant: str) -> str:
    if variant in (OURS_BYTES, OURS_INPUT):
        return OURS
    if variant in (OPENCV_BYTES, OPENCV_INPUT):
        return "OpenCV alone"
    return _PEERS.get(variant, variant)


def suite(args: argparse.Namespace) -> None:
    """Measure and write what benchmarks/run.py asks for."""
    begin, wanted = time.perf_counter(), wanted_peers(args.peers)
    names = [name for name in ("torchvision", "detectron2") if wanted is None or name in wanted]
    peers = find_peers({name: path for name, path in peer_paths(args.peer).items() if name in names}, names)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        rows, left_out = suite_rows(args, Path(folder), begin)
    # The mappers stand for the programs they are of, absent or not.
    peers["OpenCV alone"] = cv2.__version__
    for name in dict.fromkeys(name for row in rows for name in row["results"] if name not in (OURS, *peers)):
        peers[name] = "the same steps with the same libraries" if "stand-in" in name else "its own code"
    for row in rows:
        medians = {name: figures["median"] for name, figures in row["results"].items()}
        print_rows(f"{row['name']}, {row['case']}, CPU ms an image", [medians])
    print(write_document(args.out, rows, machine=machine(), peers=peers, left_out=left_out))


def main() -> None:
    """Measures all three parts, or what the suite takes of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tiny = os.environ.get("MASKRCNN_TEST_DATA")
    add_suite_options(parser)
    parser.add_argument("--data", type=Path, default=Path(tiny, "coco_tiny") if tiny else None, help="COCO's layout")
    parser.add_argument("--part", default="train2017")
    parser.add_argument("--images", type=int, default=12, help="different photos")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    keep_pages()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if args.out:
        suite(args)
        return
    if args.data is None:
        parser.error("there are no photos: give --data, or set MASKRCNN_TEST_DATA")
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
