"""What stands for a data set changes when the data do, and only then."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data.datasets import ConcatDataset
from maskrcnn_benchmark.data.fingerprint import describe_datasets
from maskrcnn_benchmark.data.open_dataset import make_opened_dataset
from tests.data.tiny_coco import TinyCoco, write_tiny_coco
from tests.data.tiny_formats import write_instance_png, write_labelme, write_voc, write_yolo


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(entry):
    cfg = global_cfg.clone()
    cfg.DATASETS.CUSTOM = [{"name": "own", **entry}]
    cfg.MODEL.MASK_ON = False
    return make_opened_dataset(cfg, "own", is_train=True)


def facts(tiny, **entry):
    (found,) = describe_datasets(opened({**tiny.custom("own")[0], **entry}))
    return found


def changed(tiny, change):
    """The data set with another json."""
    data = json.loads(json.dumps(tiny.data))
    change(data)
    tiny.ann_file.write_text(json.dumps(data))
    return facts(tiny)


def test_place_and_form_of_the_json_do_not_count(tmp_path):
    tiny = write_tiny_coco(tmp_path / "here")
    expected = facts(tiny)
    assert expected["images"] == 5
    assert all(expected.values())
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved = TinyCoco(
        *(tmp_path / "there" / path.relative_to(tmp_path / "here") for path in (tiny.root, tiny.ann_file)), tiny.data
    )
    moved.ann_file.write_text(json.dumps(tiny.data, indent=3, sort_keys=True))
    os.utime(moved.ann_file, (1, 1))
    assert facts(moved) == expected


def move_a_box(data):
    data["annotations"][0]["bbox"][0] += 1


def rename_a_category(data):
    data["categories"][0]["name"] = "dragon"


@pytest.mark.parametrize("change", [move_a_box, rename_a_category])
def test_annotations_count(tmp_path, change):
    tiny = write_tiny_coco(tmp_path)
    before = facts(tiny)
    after = changed(tiny, change)
    assert {key for key in before if before[key] != after[key]} == {"annotations"}


def test_which_images_are_taken_counts(tmp_path):
    tiny = write_tiny_coco(tmp_path / "data")
    before = facts(tiny)
    listed = tmp_path / "some.txt"
    listed.write_text("\n".join(image["file_name"] for image in tiny.data["images"][:3]))
    after = facts(tiny, list_file=str(listed))
    assert after["annotations"] == before["annotations"]
    assert after["selection"] != before["selection"]


def test_image_files_count_where_they_are_sampled(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    before = facts(tiny)
    path = tiny.root / tiny.data["images"][0]["file_name"]
    path.write_bytes(path.read_bytes() + b"\0")
    after = facts(tiny)
    assert {key for key in before if before[key] != after[key]} == {"sampled_images"}
    path.unlink()
    assert facts(tiny)["sampled_images"] is None


def test_joined_data_sets_are_described_one_by_one(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    dataset = opened(tiny.custom("own")[0])
    assert describe_datasets(ConcatDataset([dataset, dataset])) == [facts(tiny)] * 2


@pytest.mark.parametrize("write", [write_labelme, write_voc, write_yolo, write_instance_png])
def test_the_order_of_a_folder_is_that_of_its_names(tmp_path, monkeypatch, write):
    """A file system lists a folder in any order."""
    entry = write(tmp_path)
    expected = describe_datasets(opened(entry))
    for name in ("rglob", "glob", "iterdir"):
        listed = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda self, *args, listed=listed: iter(list(listed(self, *args))[::-1]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other_cache"))
    for packed in tmp_path.rglob("*.packed"):
        packed.unlink()
    assert describe_datasets(opened(entry)) == expected
