"""Two hundred damaged inputs, by seed: each is read or named, none hangs a worker, none changes another sample."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.data.image_io import read_image
from tests.data.tiny_coco import TinyCoco, tiny_annotations

NUM_CUT, NUM_FLIPPED, NUM_WHOLE = 45, 55, 20
HEIGHT, WIDTH = 48, 64


def picture(number: int) -> np.ndarray:
    coarse = np.random.default_rng(number).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encoded(number: int) -> bytes:
    flags = [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]][number % 3]
    return cv2.imencode(".jpg", picture(number), flags)[1].tobytes()


def damaged(number: int) -> bytes:
    """JPEG files 0 .. 44 are cut, 45 .. 99 have one to four bits flipped, the rest is whole."""
    data, rng = bytearray(encoded(number)), np.random.default_rng(1000 + number)
    if number < NUM_CUT:
        return bytes(data[: int(rng.integers(0, len(data) - 1))])
    if number < NUM_CUT + NUM_FLIPPED:
        for position in rng.integers(2, len(data), int(rng.integers(1, 5))):
            data[position] ^= 1 << int(rng.integers(8))
    return bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of 120 images, all whole."""
    total = NUM_CUT + NUM_FLIPPED + NUM_WHOLE
    data = {
        "images": [{"id": n, "height": HEIGHT, "width": WIDTH, "file_name": f"{n:03d}.jpg"} for n in range(total)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, 20 + n % 9, 20], "area": 400, "iscrowd": 0}
            | {"segmentation": [[5, 5, 25, 5, 25, 25]]}
            for n in range(total)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    (tmp_path / "images").mkdir()
    for number in range(total):
        (tmp_path / f"images/{number:03d}.jpg").write_bytes(encoded(number))
    return tmp_path


def attempt(call: Callable[[], Any]) -> tuple[Any, str]:
    """What a call returns, or the sentence that it ends with; any other error is let through."""
    try:
        return call(), ""
    except ValueError as error:
        return None, str(error)


def damage(folder: Path) -> None:
    for number in range(NUM_CUT + NUM_FLIPPED):
        (folder / f"images/{number:03d}.jpg").write_bytes(damaged(number))


def test_a_damaged_jpeg_is_read_or_named(folder: Path) -> None:
    damage(folder)
    outcomes = {"named": 0, "read": 0}
    for number in range(NUM_CUT + NUM_FLIPPED):
        path = folder / f"images/{number:03d}.jpg"
        image, fault = attempt(lambda path=path: read_image(path))
        if fault:
            assert str(path) in fault
            outcomes["named"] += 1
        else:
            assert number >= NUM_CUT, "a cut file is never read"
            assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
            outcomes["read"] += 1
    assert outcomes["named"] > NUM_CUT
    assert outcomes["read"] > NUM_FLIPPED // 2, "most flipped bits are but other pixels"


def config(folder: Path, *, num_workers: int) -> Any:
    cfg = global_cfg.clone()
    entry = {"name": "damaged", "img_dir": str(folder / "images"), "ann_file": str(folder / "a.json")}
    cfg.DATASETS.CUSTOM, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = [entry], ("damaged",), ("damaged",)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (32, 40), 64
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 40, 64
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.BROKEN_IMAGES = num_workers, "skip"
    cfg.SOLVER.IMS_PER_BATCH, cfg.TEST.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER = 4, 4, 60
    cfg.MODEL.MASK_ON, cfg.MODEL.DEVICE, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = True, "cpu", 2
    return cfg


def sample(batch: tuple, place: int) -> list[Any]:
    images, targets, indices = batch
    (height, width), own = images.image_sizes[place], targets[place]
    masks = own.get_field("masks").get_mask_tensor() if own.has_field("masks") else None
    return [indices[place], images.tensors[place, :, :height, :width], own.bbox, own.get_field("labels"), masks]


def same(first: list[Any], second: list[Any]) -> bool:
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_damaged_images_change_no_other_sample(folder: Path, is_train: bool, num_workers: int) -> None:
    def batches() -> list[tuple]:
        return list(make_data_loader(config(folder, num_workers=num_workers), is_train=is_train)[0])

    before = batches()
    damage(folder)
    after = batches()
    assert len(before) == len(after)
    unreadable = {number for number in range(NUM_CUT + NUM_FLIPPED) if is_unreadable(folder, number)}
    compared = 0
    for first, second in zip(before, after, strict=True):
        for place, index in enumerate(first[2]):
            if index not in unreadable:
                assert second[2][place] == index
            if index >= NUM_CUT + NUM_FLIPPED:
                assert same(sample(first, place), sample(second, place))
                compared += 1
    assert compared >= NUM_WHOLE
    taken = {index for *_, indices in after for index in indices}
    assert taken == (set(range(120)) - unreadable if is_train else set(range(120)))


def is_unreadable(folder: Path, number: int) -> bool:
    image, fault = attempt(lambda: read_image(folder / f"images/{number:03d}.jpg"))
    return bool(fault) or image.shape != (HEIGHT, WIDTH, 3)


# What may stand in the place of a field, or of an entry.
WRONG: dict[str, Any] = {
    "missing": KeyError,
    "null": None,
    "NaN": float("nan"),
    "negative": -5,
    "huge": 10**25,
    "huge float": 1e300,
    "text": "abc",
    "list": [1, [2]],
    "object": {"a": 1},
    "true": True,
    "empty": "",
    "zero": 0,
}
FIELDS = [
    *(("images", 1, key) for key in ("id", "height", "width", "file_name")),
    *(("categories", 1, key) for key in ("id", "name")),
    *(("annotations", 2, key) for key in ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "area")),
    *(("annotations", 0, "segmentation", key) for key in ("size", "counts")),
    *(("annotations", 2, "bbox", place) for place in (0, 2)),
    ("annotations", 2, "segmentation", 0, 3),
    ("annotations", 2, "segmentation", 1),
    ("annotations", 5),
    ("images",),
]
CASES = [(path, name) for path in FIELDS for name in WRONG]


def change(data: dict[str, Any], path: tuple[str | int, ...], value: Any) -> None:
    *way, last = path
    for step in way:
        data = data[step]
    if value is KeyError:
        del data[last]
    else:
        data[last] = value


def objects_of(dataset: COCODataset, index: int) -> list[Any]:
    targets = dataset.load_targets(index)
    polygons = targets.polygons
    parts = [] if polygons is None else [polygons.coords, polygons.ring_offsets, polygons.instance_offsets]
    return [array.tolist() for array in (targets.boxes, targets.labels, *parts)]


def opened(tiny: TinyCoco) -> COCODataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an overflow that passes silently
        return COCODataset(tiny.ann_file, tiny.root, remove_images_without_annotations=False)


def test_a_damaged_json_is_read_or_named(tiny: TinyCoco) -> None:
    assert len(CASES) + NUM_CUT + NUM_FLIPPED > 200
    whole = opened(tiny)
    expected = {whole.ids[index]: objects_of(whole, index) for index in range(len(whole))}
    read = []
    for path, name in CASES:
        data = copy.deepcopy(tiny_annotations())
        change(data, path, WRONG[name])
        tiny.ann_file.write_text(json.dumps(data))
        dataset, fault = attempt(lambda: opened(tiny))
        if fault:
            assert str(tiny.ann_file) in fault, (path, name)
            assert len(fault) < 600, (path, name)
            continue
        read.append((path, name))
        touched = _image_of(path)
        for index in range(len(dataset)):
            image_id = dataset.ids[index]
            if image_id != touched and image_id in expected:  # the id itself may be another now
                assert objects_of(dataset, index) == expected[image_id], (path, name)
            else:
                assert np.isfinite(dataset.load_targets(index).boxes).all(), (path, name)
    assert len(read) < len(CASES) // 2
    assert all(name != "NaN" for _, name in read), "which JSON does not have"
    out_of_range = {path for path, name in read if name in ("huge", "huge float")}
    assert out_of_range == {("categories", 1, "name"), ("annotations", 2, "id")}, "which are texts, and not used"


def _image_of(path: tuple[str | int, ...]) -> int | None:
    """The image that an entry belongs to; the names of categories belong to none."""
    if path[0] == "images":
        return tiny_annotations()["images"][1]["id"]
    return tiny_annotations()["annotations"][path[1]]["image_id"] if path[0] == "annotations" else None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("annotations", 2, "bbox", 2), float("inf"), r"not valid JSON at byte \d+"),
        (("annotations", 2, "bbox", 2), 1e300, r"annotation 1002 must have a bbox .*within a million pixels, got"),
        (("annotations", 2, "bbox", 2), "9", r"annotation 1002 must have a bbox .*numbers only"),
        (("annotations", 2, "iscrowd"), "0", r"annotation 1002 must have iscrowd 0 or 1, got '0'"),
        (("annotations", 2, "segmentation", 0, 1), None, r"annotation 1002 has a segmentation .*numbers only"),
        (("annotations", 2, "category_id"), 7.0, r"annotation 1002 must have an integer category_id, got '7.0'"),
        (("annotations", 2, "area"), "big", r"annotation 1002 must have an area in square pixels, got 'big'"),
        (("annotations", 3, "segmentation", "size"), [80, 60], r"annotation 1003 has a segmentation .*RLE of size"),
        (("annotations", 0, "segmentation", "counts"), [2**62, 2**62, 4800, 2**63 - 1, 1], r"annotation 1000 .*RLE"),
        (("annotations", 2), 5, r"an annotation must be an object, got 5"),
        (("images", 0, "height"), 10**12, r"image 42 has 80x1000000000000 pixels"),
        (("images", 0, "height"), -60, r"image 42 must have a height in pixels, got '-60'"),
        (("images", 0, "file_name"), "a\0b", r"image 42 must have a file_name"),
        (("images", 0), "x", r"an image must be an object, got x"),
        (("categories", 0), None, r"a category must be an object, got None"),
        (("annotations",), {}, r"'annotations' must be a list, got dict"),
    ],
)
def test_a_fault_is_named_with_its_entry(tiny: TinyCoco, path: tuple, value: Any, message: str) -> None:
    change(tiny.data, path, value)
    tiny.ann_file.write_text(json.dumps(tiny.data))
    with pytest.raises(ValueError, match=message) as error:
        opened(tiny)
    assert re.search(re.escape(str(tiny.ann_file)), str(error.value))


@pytest.mark.parametrize("kind", ["cut", "flipped"])
def test_a_json_of_damaged_bytes_is_read_or_named(tiny: TinyCoco, kind: str) -> None:
    text, rng = tiny.ann_file.read_bytes(), np.random.default_rng(5)
    how: dict[str, Callable[[], bytes]] = {
        "cut": lambda: text[: int(rng.integers(len(text) - 1))],
        "flipped": lambda: _with_a_flipped_bit(text, int(rng.integers(len(text))), int(rng.integers(8))),
    }
    named = 0
    for _ in range(60):
        tiny.ann_file.write_bytes(how[kind]())
        dataset, fault = attempt(lambda: opened(tiny))
        if fault:
            assert str(tiny.ann_file) in fault
            named += 1
        else:
            for index in range(len(dataset)):
                dataset.load_targets(index)
    assert named == 60 if kind == "cut" else named > 30


def _with_a_flipped_bit(text: bytes, position: int, bit: int) -> bytes:
    return text[:position] + bytes([text[position] ^ 1 << bit]) + text[position + 1 :]
