"""tools/check_dataset.py on every format: what it counts, the faults it finds, and its sheet of pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.data.tiny_cityscapes import write_tiny_cityscapes
from tests.data.tiny_formats import FORMATS, HEIGHT, WIDTH
from tests.data.tiny_voc import write_tiny_voc
from tools.check_dataset import main as check_dataset


def words(entry: dict) -> list[str]:
    return [f"{key}={value}" for key, value in entry.items()]


@pytest.mark.parametrize("kind", FORMATS)
def test_counts_of_every_format(tmp_path: Path, capsys, kind: str) -> None:
    entry = FORMATS[kind](tmp_path / "data")
    assert check_dataset([*words(entry), "--sheet", str(tmp_path / "out" / "sheet.png")]) == 0
    out = capsys.readouterr().out
    for line in ("4 images", "1 images without objects", "2 categories", "5 objects", "2 bolt", "3 nut"):
        assert f" {line}\n" in out
    assert f"images: width x height from {WIDTH}x{HEIGHT} to {WIDTH}x{HEIGHT}, median {WIDTH}x{HEIGHT}" in out
    assert "objects: 5 small (below 32x32), 0 medium, 0 large" in out
    assert "the model has MODEL.ROI_BOX_HEAD.NUM_CLASSES 3" in out
    assert out.endswith("no errors\n")
    sheet = cv2.imread(str(tmp_path / "out" / "sheet.png"))
    assert sheet.shape == (330, 1630, 3), "four pictures side by side"
    # Each bolt, red, has a frame of its class's colour; grey is left where there is no object.
    assert (np.abs(sheet[:300].astype(int) - 128).max(axis=-1) < 8).mean() > 0.3


def test_a_sheet_shows_boxes_where_they_are(tmp_path: Path) -> None:
    entry = FORMATS["labelme"](tmp_path / "data")
    assert check_dataset([*words(entry), "--sheet", str(tmp_path / "sheet.png")]) == 0
    sheet = cv2.imread(str(tmp_path / "sheet.png")).astype(int)
    scale = 400 / WIDTH
    first = sheet[6:306, 6:406]
    # The bolt of the first picture: its frame runs along x from 30 to 54 at y = 40, between two greys.
    bottom = round(40 * scale) - 1
    frame = first[bottom - 1 : bottom + 2, round(35 * scale) : round(49 * scale)]
    assert (np.ptp(frame, axis=-1) > 60).any(axis=0).all()
    assert np.ptp(first[bottom + 6, round(35 * scale) : round(49 * scale)], axis=-1).max() < 20


def test_all_data_sets_of_a_config(tmp_path: Path, capsys) -> None:
    entry = FORMATS["labelme"](tmp_path / "data")
    split = {**entry, "val_fraction": 0.5}
    custom = [{"name": "own_train", "split": "train", **split}, {"name": "own_val", "split": "val", **split}]
    config = {
        "MODEL": {"MASK_ON": True},
        "DATASETS": {"CUSTOM": custom, "TRAIN": ["own_train"], "TEST": ["own_val"]},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    command = ["--config-file", str(tmp_path / "own.yaml"), "--sheet", str(tmp_path / "sheet.png")]
    assert check_dataset(command) == 0
    out = capsys.readouterr().out
    assert "data set own_train: json_dir" in out
    assert "own_val: " in out
    assert (tmp_path / "sheet_own_train.png").is_file()
    assert (tmp_path / "sheet_own_val.png").is_file()
    assert check_dataset([*command, "MODEL.ROI_BOX_HEAD.NUM_CLASSES", "7"]) == 1
    assert (
        "NUM_CLASSES is 7, as the overrides says, but the data of own_train have 2 classes" in capsys.readouterr().out
    )


def test_masks_that_a_config_asks_for_in_vain(tmp_path: Path, capsys) -> None:
    custom = [{"name": "own", **FORMATS["voc"](tmp_path / "data")}]
    config = {"MODEL": {"MASK_ON": True}, "DATASETS": {"CUSTOM": custom, "TRAIN": ["own"]}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    assert check_dataset(["--config-file", str(tmp_path / "own.yaml")]) == 1
    assert "the objects have boxes only; set MODEL.MASK_ON to False" in capsys.readouterr().out


def test_published_layouts(tmp_path: Path, capsys) -> None:
    write_tiny_voc(tmp_path / "voc")
    assert check_dataset([f"data_dir={tmp_path}/voc", "split=train"]) == 0
    out = capsys.readouterr().out
    for line in ("4 images", "20 categories", "2 ignored objects", "1 car"):
        assert f" {line}\n" in out
    assert "object 2 (cat) is left out: its box is degenerate" in out
    write_tiny_cityscapes(tmp_path / "city")
    folders = [f"img_dir={tmp_path}/city/leftImg8bit", f"ann_dir={tmp_path}/city/gtFine", "split=train"]
    assert check_dataset(folders) == 0
    out = capsys.readouterr().out
    for line in ("4 images", "10 categories", "2 car", "3 person", "1 images without objects"):
        assert f" {line}\n" in out
    next(tmp_path.rglob("*/gtFine/train/bonn/*_instanceIds.png")).write_bytes(b"")
    assert check_dataset(folders) == 1
    assert "_instanceIds.png is damaged" in capsys.readouterr().out


def edit(path: Path, change: Callable[[dict], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def labelme_points(points: list) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "a.json", lambda data: data["shapes"][0].update(points=points))


def damage(folder: Path) -> None:
    path = next(folder.rglob("b.jpg"))
    path.write_bytes(path.read_bytes()[:-100])


def resize(folder: Path) -> None:
    cv2.imwrite(str(next(folder.rglob("b.jpg"))), np.zeros((HEIGHT + 1, WIDTH, 3), dtype=np.uint8))


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = next(folder.rglob(name))
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


# format, what is done to its files, what the check says, whether a run would refuse the data
FAULTS = [
    ("voc", damage, r"image {}/images/b.jpg is truncated", True),
    ("labelme", damage, r"image {}/b.jpg is truncated", True),
    ("yolo", damage, r"image {}/images/train/b.jpg is truncated", True),
    ("instance_png", damage, r"image {}/images/b.jpg is truncated", True),
    ("voc", resize, "{}/images/b.jpg is 64x49 pixels, the annotations say 64x48", True),
    ("labelme", resize, "{}/b.jpg is 64x49 pixels, the annotations say 64x48", True),
    ("instance_png", resize, "{}/images/b.jpg is 64x49 pixels, the annotations say 64x48", True),
    ("voc", lambda folder: next(folder.rglob("b.jpg")).unlink(), "{}/xml/b.xml has no image in {}/images", True),
    ("labelme", lambda folder: (folder / "b.json").unlink(), "image {}/b.jpg has no annotation file in", False),
    ("labelme", lambda folder: (folder / "a.json").write_text("{"), "{}/a.json is not valid JSON", True),
    ("labelme", labelme_points([[3, 3], [4, 4]]), "a.json: shape 1 (nut) is left out: a polygon of 2 points", False),
    ("labelme", labelme_points([[3, 3], [9, 9], [3, 3]]), "a polygon of 3 points is open: fewer than three", False),
    ("labelme", labelme_points([[3, 3], [9, 9], [6, 6.1]]), "a polygon of 3 points is tiny, with 0.3 square", False),
    ("labelme", labelme_points([[3, 3], [3.5, 3], [3.5, 30]]), "its box is degenerate, 0.5 wide and 27.0 high", False),
    ("labelme", labelme_points([[50, 3], [90, 3], [90, 30]]), "reaches beyond the image of 64x48", False),
    ("labelme", labelme_points([[70, 3], [90, 3], [90, 30]]), "is left out: its box lies outside the image", False),
    ("voc", replace("a.xml", "<xmin>5</xmin>", "<xmin>five</xmin>"), "a.xml: object 1 (nut): bndbox/xmin must", True),
    ("voc", replace("a.xml", "<xmax>24</xmax>", "<xmax>5</xmax>"), "a.xml: object 1 (nut) is left out: its", False),
    ("voc", replace("a.xml", "</annotation>", ""), "a.xml: is not valid XML", True),
    ("yolo", replace("a.txt", "0 ", "7 "), "a.txt, line 2: class 7 is not one of the 2 classes", True),
    ("yolo", replace("a.txt", "0.0625 ", "-0.5 "), "a.txt, line 1: coordinates must be fractions", True),
    ("instance_png", lambda folder: (folder / "masks/b_mask.png").write_bytes(b"x"), "b_mask.png is damaged", True),
    ("coco", replace("annotations.json", '"category_id": 2', '"category_id": 9'), "a.jpg: annotation 1 has", True),
    ("coco", replace("annotations.json", '"id": 2, "image_id"', '"id": 1, "image_id"'), "id 1 stands 2 times", True),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "message", "refused"), FAULTS)
def test_faults_are_named_with_their_file(tmp_path: Path, capsys, kind: str, change, message: str, refused) -> None:
    folder = tmp_path / "data"
    entry = FORMATS[kind](folder)
    change(folder)
    assert check_dataset(words(entry)) == (1 if refused else 0)
    assert message.format(folder, folder) in capsys.readouterr().out


def test_a_class_that_is_not_listed(tmp_path: Path, capsys) -> None:
    entry = FORMATS["labelme"](tmp_path / "data")
    assert check_dataset([*words(entry), "classes=nut,screw"]) == 1
    out = capsys.readouterr().out
    assert "a.json: object 2 (bolt) has a class that is not among nut, screw" in out
    (tmp_path / "classes.txt").write_text("__ignore__\n_background_\nbolt\nnut\n")
    assert check_dataset([*words(entry), f"classes={tmp_path}/classes.txt"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the data: --config-file FILE, or keys such as img_dir=images"),
        (["img_dir=/nowhere", "mask_dir=/nowhere"], "img_dir /nowhere does not exist"),
        (["split=train"], "DATASETS.CUSTOM[0] lacks ann_file"),
        (["--config-file", "/nowhere.yaml"], "config file /nowhere.yaml does not exist"),
    ],
)
def test_a_faulty_command(arguments: list[str], message: str, capsys) -> None:
    assert check_dataset(arguments) == 1
    assert message in capsys.readouterr().err
