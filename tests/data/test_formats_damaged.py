"""Damaged annotation files of every format: a sentence with the file's name, never another exception."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import make_dataset
from tests.data.tiny_formats import FORMATS, WITHOUT_MASKS
from tests.fuzz.mutate import changed, places
from tools.check_dataset import main as check_dataset

# The file that is damaged, below the folder of the format.
FILES = {
    "coco": "annotations.json",
    "voc": "xml/a.xml",
    "labelme": "a.json",
    "yolo": "labels/train/a.txt",
    "instance_png": "masks/a_mask.png",
}
WRONG = [None, math.nan, -1, 1e300, 10**30, "x", "", [], {}, [[]], True, [None], [1e300] * 4]


def use(kind: str, entry: dict, *, name: str) -> str:
    """Open the data set and read all samples' objects, and check it; the message of what is wrong, if anything."""
    cfg = global_cfg.clone()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.MASK_ON", kind not in WITHOUT_MASKS, "MODEL.RPN_ONLY", True])
    cfg.DATASETS.CUSTOM = [{"name": "own", **entry}]
    message = ""
    try:
        dataset = make_dataset(cfg, "own", is_train=False)
        for index in range(len(dataset)):
            targets = dataset.load_targets(index)
            assert np.isfinite(targets.boxes).all()
    except (ValueError, OSError) as error:
        message = str(error)
        assert name in message, message
    status = check_dataset([*(f"{key}={value}" for key, value in entry.items()), "--no-decode"])
    assert status == 1 or not message, f"a run refuses what the check lets pass: {message}"
    return message


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_every_field_of_a_json(tmp_path: Path, kind: str, capsys) -> None:
    entry = FORMATS[kind](tmp_path / "data")
    path = tmp_path / "data" / FILES[kind]
    whole = json.loads(path.read_text())
    refused = 0
    where = list(places(whole, most=2))
    for number, place in enumerate(where):
        for value in [WRONG[number % len(WRONG)], WRONG[(number * 5 + 3) % len(WRONG)]]:
            path.write_text(json.dumps(changed(whole, place, value)))
            refused += bool(use(kind, entry, name="a"))
        path.write_text(json.dumps(changed(whole, place, None, remove=True)))
        refused += bool(use(kind, entry, name="a"))
    assert refused > len(where) / 2
    capsys.readouterr()


@pytest.mark.parametrize("kind", FORMATS)
def test_flipped_bits_and_truncated_files(tmp_path: Path, kind: str, capsys) -> None:
    entry = FORMATS[kind](tmp_path / "data")
    path = tmp_path / "data" / FILES[kind]
    whole = path.read_bytes()
    rng = np.random.default_rng(len(kind))
    for number in range(24):
        data = bytearray(whole)
        if number % 3:
            for at in rng.integers(len(data), size=number % 3):
                data[at] ^= 1 << int(rng.integers(8))
        else:
            data = data[: int(rng.integers(len(data)))]
        path.write_bytes(bytes(data))
        use(kind, entry, name=path.name)
    capsys.readouterr()
