from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from maskrcnn_benchmark.data.datasets import COCODataset
from tests.data.tiny_coco import TinyCoco
from tools.check_dataset import main as check_dataset
from tools.convert_penn_fudan import main as convert_penn_fudan
from tools.convert_penn_fudan import split_names


def write_penn_fudan(folder: Path, num_images: int) -> dict[str, np.ndarray]:
    """A data set in Penn-Fudan's layout; returns its masks."""
    (folder / "PNGImages").mkdir(parents=True)
    (folder / "PedMasks").mkdir()
    masks = {}
    for number in range(num_images):
        mask = np.zeros((20, 30 + number % 2), dtype=np.uint8)
        mask[2:9, 3:8] = 1
        mask[4:6, 4:6] = 0  # a hole
        mask[5:15, 12 : 20 + number % 5] = 2
        name = f"Ped{number:05d}"
        cv2.imwrite(str(folder / "PNGImages" / f"{name}.png"), np.repeat(mask[..., None] * 50, 3, axis=2))
        cv2.imwrite(str(folder / "PedMasks" / f"{name}_mask.png"), mask)
        masks[f"{name}.png"] = mask
    return masks


def check_conversion(source: Path, destination: Path, expected: dict[str, tuple[int, int]]) -> None:
    for split, (num_images, num_objects) in expected.items():
        ann_file = destination / "annotations" / f"instances_{split}.json"
        assert check_dataset([str(ann_file), str(destination / split)]) == 0
        coco = COCO(str(ann_file))
        assert (len(coco.imgs), len(coco.anns)) == (num_images, num_objects)
        for image in coco.imgs.values():
            stem = Path(image["file_name"]).stem
            mask = cv2.imread(str(source / "PedMasks" / f"{stem}_mask.png"), cv2.IMREAD_UNCHANGED)
            rebuilt = np.zeros_like(mask)
            for value, annotation in enumerate(coco.imgToAnns[image["id"]], start=1):
                rebuilt[coco.annToMask(annotation) > 0] = value
            np.testing.assert_array_equal(rebuilt, mask)
        dataset = COCODataset(ann_file, destination / split, True)
        assert dataset.categories == ("person",)
        assert sum(len(dataset.load_targets(index)) for index in range(len(dataset))) == num_objects


def test_penn_fudan_layout_is_converted(tmp_path: Path, capsys) -> None:
    masks = write_penn_fudan(tmp_path / "source", 125)
    assert convert_penn_fudan([str(tmp_path / "source"), str(tmp_path / "out")]) == 0
    assert "train: 120 images, 240 objects\ntest: 5 images, 10 objects\n" in capsys.readouterr().out
    check_conversion(tmp_path / "source", tmp_path / "out", {"train": (120, 240), "test": (5, 10)})
    data = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    first = data["annotations"][0]
    assert first["bbox"] == [3, 2, 5, 7]
    assert first["area"] == 5 * 7 - 2 * 2
    names = [Path(name).stem for name in masks]
    digests = {name: hashlib.md5(name.encode()).hexdigest() for name in names}
    split = split_names(names[::-1])
    assert max(digests[name] for name in split["train"]) < min(digests[name] for name in split["test"])


def test_the_real_penn_fudan_set(external_data, tmp_path: Path) -> None:
    source = external_data("PennFudanPed")
    assert convert_penn_fudan([str(source), str(tmp_path)]) == 0
    check_conversion(source, tmp_path, {"train": (120, 301), "test": (50, 122)})


def test_conversion_names_what_is_missing(tmp_path: Path, capsys) -> None:
    assert convert_penn_fudan([str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    assert "there are no images at" in capsys.readouterr().err
    write_penn_fudan(tmp_path / "source", 3)
    (tmp_path / "source/PedMasks/Ped00001_mask.png").unlink()
    assert convert_penn_fudan([str(tmp_path / "source"), str(tmp_path / "out")]) == 1
    assert "Ped00001.png has no mask" in capsys.readouterr().err


def test_check_counts(tiny: TinyCoco, capsys) -> None:
    assert check_dataset([str(tiny.ann_file), str(tiny.root)]) == 0
    out = capsys.readouterr().out
    for line in ("6 images", "1 images without objects", "3 categories", "7 objects", "1 crowds", "3 kite", "2 ring"):
        assert f" {line}\n" in out
    assert "NUM_CLASSES 4" in out
    assert "annotation 1006 is left out: its box is degenerate, 1.0 wide and 20.0 high" in out


def damage_images(tiny: TinyCoco) -> None:
    (tiny.root / "image_5.jpg").unlink()
    path = tiny.root / "image_17.jpg"
    path.write_bytes(path.read_bytes()[:-100])


FAULTS = {
    "there is no file": damage_images,
    "is truncated": damage_images,
    "id 42 stands 2 times in 'images'": lambda tiny: tiny.data["images"].append(tiny.data["images"][0]),
    "an entry of 'categories' has no integer id": lambda tiny: tiny.data["categories"].append({"id": "a"}),
    "image_5.jpg is 60x80 pixels, the annotations say 61x80": lambda tiny: tiny.data["images"][1].update(width=61),
    "image 42 has no height": lambda tiny: tiny.data["images"][0].pop("height"),
    "belongs to image 1, which is not listed": lambda tiny: tiny.data["annotations"][2].update(image_id=1),
    "has category 1, which is not listed": lambda tiny: tiny.data["annotations"][2].update(category_id=1),
    "has no bbox of 4 numbers but [1]": lambda tiny: tiny.data["annotations"][2].update(bbox=[1]),
    "a polygon of 7 numbers": lambda tiny: tiny.data["annotations"][2].update(segmentation=[[0] * 7]),
    "RLE of size [1, 2]": lambda tiny: tiny.data["annotations"][0]["segmentation"].update(size=[1, 2]),
    "there is no list 'annotations'": lambda tiny: tiny.data.pop("annotations"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_check_finds(tiny: TinyCoco, capsys, message: str) -> None:
    FAULTS[message](tiny)
    tiny.ann_file.write_text(json.dumps(tiny.data))
    assert check_dataset([str(tiny.ann_file), str(tiny.root)]) == 1
    assert message in capsys.readouterr().out


def test_check_warns_of_polygons_without_area(tiny: TinyCoco, capsys) -> None:
    tiny.data["annotations"][2]["segmentation"].append([1, 2, 3, 4])
    tiny.ann_file.write_text(json.dumps(tiny.data))
    assert check_dataset([str(tiny.ann_file), str(tiny.root)]) == 0
    assert "annotation 1002: 1 of its 3 polygons have fewer than 6 numbers" in capsys.readouterr().out


def test_check_as_a_program(tiny: TinyCoco, repository: Path) -> None:
    command = [sys.executable, "tools/check_dataset.py", str(tiny.ann_file.with_name("no.json")), str(tiny.root)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("no.json does not exist")
    assert "Traceback" not in done.stderr
