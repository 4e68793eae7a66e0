"""docs/custom_data.md from start to finish: its files are written and its commands run as they are printed there.

In the quick form the network of the printed config is replaced by a tiny one, and the programs run in this process; in
the slow form the shell runs them, and the network is the demo's.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from maskrcnn_benchmark.apps import predict_files
from maskrcnn_benchmark.apps import test as test_app
from maskrcnn_benchmark.apps import train as train_app
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.config.catalog import custom_entries
from tests.apps.tiny_run import OPTIONS, tiny_run
from tests.data import tiny_formats
from tests.data.tiny_cityscapes import write_tiny_cityscapes
from tools.check_dataset import main as check_dataset

__all__ = ["tiny_run"]  # a fixture, which resets threads and log

REPOSITORY = Path(__file__).resolve().parent.parent
TEXT = (REPOSITORY / "docs" / "custom_data.md").read_text(encoding="utf-8")
INTRODUCTION, *SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)
BASE = "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"
PICTURES = tiny_formats.many_objects(10)


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def section(title: str) -> str:
    return next(each for each in SECTIONS if each.startswith(f"{title}\n"))


def coco_files(folder: Path) -> None:
    tiny_formats.write_coco(folder / "parts", PICTURES)
    for name in ("train.json", "val.json"):
        shutil.copy(folder / "parts" / "annotations.json", folder / "parts" / name)


def mask_files(folder: Path) -> None:
    """Penn-Fudan's layout and names."""
    tiny_formats.write_instance_png(folder / "PennFudanPed", PICTURES)
    images = (folder / "PennFudanPed" / "images").rename(folder / "PennFudanPed" / "PNGImages")
    (folder / "PennFudanPed" / "masks").rename(folder / "PennFudanPed" / "PedMasks")
    for path in images.iterdir():
        cv2.imwrite(str(path.with_suffix(".png")), cv2.imread(str(path)))
        path.unlink()


# Section of the guide -> its files, its classes, a command of its own further down.
FORMATS = {
    "COCO json": (coco_files, ("bolt", "nut"), "parts/train.json"),
    "Pascal VOC xml": (lambda folder: tiny_formats.write_voc(folder / "parts", PICTURES), ("bolt", "nut"), None),
    "labelme json": (
        lambda folder: tiny_formats.write_labelme(folder / "parts", PICTURES),
        ("bolt", "nut"),
        "format=labelme",
    ),
    "YOLO txt": (lambda folder: tiny_formats.write_yolo(folder / "parts", PICTURES), ("bolt", "nut"), None),
    "PNG instance masks": (mask_files, ("person",), "img_dir=PennFudanPed"),
    "Cityscapes": (
        lambda folder: write_tiny_cityscapes(folder / "cityscapes", ("train", "val")),
        ("person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
        None,
    ),
}


def prepare(folder: Path, title: str, settings: dict[str, object]) -> None:
    """The files of a section, the pictures to predict on, and a base whose network is smaller."""
    FORMATS[title][0](folder)
    tiny_formats.write_images(folder / "parts_to_look_at", tiny_formats.many_objects(2))
    (block,) = blocks(section(title), "yaml")
    first, _ = block.split("\n", 1)
    (folder / first.removeprefix("# ")).write_text(block)
    tree: dict[str, object] = {"_BASE_": str(REPOSITORY / BASE)}
    for key, value in settings.items():
        *path, leaf = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    (folder / BASE).parent.mkdir(parents=True)
    (folder / BASE).write_text(yaml.safe_dump(tree))


def check_results(folder: Path, title: str) -> None:
    """What the four commands leave behind."""
    classes = list(FORMATS[title][1])
    assert all(cv2.imread(str(path)).shape[0] > 100 for path in (folder / "results").glob("sheet_*.png"))
    assert len(list((folder / "results").glob("sheet_*.png"))) == 2, "one sheet for each data set"
    run = folder / "results" / "parts"
    assert torch.load(run / "model_final.pth", weights_only=True)["iteration"] > 0
    assert [each["name"] for each in json.loads((run / "categories.json").read_text())] == classes
    saved = yaml.safe_load((run / "config.yml").read_text())
    assert saved["MODEL"]["ROI_BOX_HEAD"]["NUM_CLASSES"] == len(classes) + 1
    assert list(saved["DATASETS"]["CLASSES"]) == classes
    predictions = json.loads((folder / "results" / "pictures" / "predictions.json").read_text())
    assert [each["name"] for each in predictions["categories"]] == classes
    assert len(predictions["images"]) == 2
    figures = "cityscapes_results.json" if title == "Cityscapes" else "coco_results.pth"
    (found,) = (run / "inference").glob(f"*/{figures}")
    if figures.endswith(".pth"):
        results = torch.load(found, weights_only=True)
        assert set(results) == ({"bbox"} if title == "Pascal VOC xml" else {"bbox", "segm"})
        assert all(0 <= task["AP"] <= 1 for task in results.values()), "there is ground truth to score against"


def run_here(command: str) -> int:
    """A printed command in this process."""
    python, tool, *arguments = shlex.split(command)
    assert python == "python"
    if tool == "tools/check_dataset.py":
        return check_dataset(arguments)
    if tool == "tools/predict.py":
        return predict_files.main(predict_files.make_parser().parse_args(arguments))
    app = {"tools/train_net.py": train_app, "tools/test_net.py": test_app}[tool]
    app.main(app.make_parser().parse_args(arguments), cfg)
    return 0


@pytest.mark.parametrize("title", FORMATS)
def test_the_guide_with_a_tiny_network(title, tiny_run, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    settings = {**OPTIONS, "SOLVER.MAX_ITER": 2, "TEST.IMS_PER_BATCH": 1}
    settings.pop("MODEL.ROI_BOX_HEAD.NUM_CLASSES")
    prepare(folder, title, settings)
    commands = "".join(blocks(INTRODUCTION, "bash")).splitlines()
    assert [shlex.split(command)[1] for command in commands] == [
        "tools/check_dataset.py",
        "tools/train_net.py",
        "tools/test_net.py",
        "tools/predict.py",
    ]
    for command in commands:
        assert run_here(command) == 0, command
    check_results(folder, title)
    assert "NUM_CLASSES follows the data" in capsys.readouterr().out
    further = "".join(block for each in SECTIONS for block in blocks(each, "bash")).splitlines()
    mark = FORMATS[title][2]
    for command in further:
        assert any(mark in command for _, _, mark in FORMATS.values() if mark), f"{command} is run nowhere"
        if mark is not None and mark in command:
            assert run_here(command) == 0, command


@pytest.mark.slow
def test_the_real_penn_fudan_set_as_the_guide_says(external_data, tiny_run, tmp_path, monkeypatch):
    source = external_data("PennFudanPed")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setitem(FORMATS, "PNG instance masks", (lambda _: None, ("person",), None))
    (folder / "PennFudanPed").symlink_to(source)
    settings = {**OPTIONS, "SOLVER.MAX_ITER": 2}
    settings.pop("MODEL.ROI_BOX_HEAD.NUM_CLASSES")
    prepare(folder, "PNG instance masks", settings)
    for command in "".join(blocks(INTRODUCTION, "bash")).splitlines():
        assert run_here(command) == 0, command
    check_results(folder, "PNG instance masks")
    tested = json.loads((folder / "results/parts/inference/people_val/bbox.json").read_text())
    assert 15 < len({each["image_id"] for each in tested}) < 60, "a fifth of 170"


def test_coco_tiny_by_config_alone(external_data, tiny_run, tmp_path):
    root = external_data("coco_tiny")
    entries = [
        {"name": split, "img_dir": str(root / split), "ann_file": str(root / f"annotations/instances_{split}.json")}
        for split in ("train2017", "val2017")
    ]
    datasets = {"CUSTOM": entries, "TRAIN": "(train2017,)", "TEST": "(val2017,)"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"_BASE_": str(REPOSITORY / BASE), "DATASETS": datasets}))
    unset = dict.fromkeys(("MODEL.ROI_BOX_HEAD.NUM_CLASSES", "DATASETS.CUSTOM", "DATASETS.TRAIN", "DATASETS.TEST"))
    tiny_run.train(config=tmp_path / "mine.yaml", keys={**unset, "SOLVER.MAX_ITER": 2})
    saved = yaml.safe_load((tiny_run.output / "config.yml").read_text())
    assert saved["MODEL"]["ROI_BOX_HEAD"]["NUM_CLASSES"] == 81
    assert saved["DATASETS"]["CLASSES"][0] == "person"
    results = torch.load(tiny_run.output / "inference/val2017/coco_results.pth", weights_only=True)
    assert set(results) == {"bbox", "segm"}


@pytest.mark.slow
@pytest.mark.parametrize("title", FORMATS)
def test_the_guide_with_the_demo_s_network(title, tmp_path):
    settings = {"SOLVER.MAX_ITER": 12, "SOLVER.STEPS": "(10,)", "SOLVER.WARMUP_ITERS": 2, "SOLVER.LOG_PERIOD": 4}
    prepare(tmp_path, title, settings)
    (tmp_path / "tools").symlink_to(REPOSITORY / "tools")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        ["bash", "-ec", "".join(blocks(INTRODUCTION, "bash"))],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check_results(tmp_path, title)


def test_the_guide_s_configs_are_accepted(tmp_path):
    """With the printed base."""
    for title in FORMATS:
        (block,) = blocks(section(title), "yaml")
        (tmp_path / "parts.yaml").write_text(block.replace("configs/", f"{REPOSITORY}/configs/"))
        config = cfg.clone()
        config.merge_from_file(tmp_path / "parts.yaml")
        assert set(config.DATASETS.TRAIN + config.DATASETS.TEST) == set(custom_entries(config))
