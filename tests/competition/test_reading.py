"""Train.json as it may come: keys left out, Korean names in either spelling, files too many and too few."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.config import validate
from maskrcnn_benchmark.data.datasets.loose_coco import LooseCOCODataset, list_images
from maskrcnn_benchmark.data.open_dataset import make_opened_dataset
from maskrcnn_benchmark.evaluation.coco import evaluate_detections
from tests.competition.data_tree import HEIGHT, REPOSITORY, WIDTH, write_tree

CLASSES = (
    "sedan", "SUV", "van", "bus", "school bus", "truck", "taxi", "adult", "child", "motorcycle", "kickboard", "bicycle",
    "stroller", "cart",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DATA_DIR", raising=False)


@pytest.fixture
def tree(tmp_path):
    train, information = write_tree(tmp_path / "DATA", num_train=40, num_test=6)
    return tmp_path / "DATA", train, information


def opened(root, *, is_train=False, name="parking_2022_train", split=False):
    cfg = global_cfg.clone()
    cfg.merge_from_file(REPOSITORY / "configs" / "parking_2022.yaml")
    cfg.DATASETS.DATA_DIR = str(root)
    if split:
        return make_opened_dataset(cfg, name, is_train=is_train)
    return LooseCOCODataset(root / "train/label/Train.json", root / "train/images", is_train, classes=CLASSES)


def rewrite(root, content):
    (root / "train/label/Train.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def test_the_official_config_is_of_fourteen_classes_without_masks():
    cfg = global_cfg.clone()
    cfg.merge_from_file(REPOSITORY / "configs" / "parking_2022.yaml")
    cfg.MODEL.DEVICE = "cpu"
    validate(cfg)
    heads = cfg.MODEL.ROI_HEADS
    assert (cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES, cfg.MODEL.MASK_ON, cfg.DATASETS.DATA_DIR) == (15, False, "/DATA")
    assert (heads.SCORE_THRESH, heads.NMS, heads.DETECTIONS_PER_IMG) == (0.01, 0.7, 50)
    assert 0 < cfg.SOLVER.MAX_TIME <= 36
    assert 0 < cfg.TEST.MAX_TIME <= 3


def test_what_is_left_out_is_filled_in(tree):
    root, train, _ = tree
    dataset = opened(root)
    assert dataset.categories == CLASSES
    assert list(dataset.ids) == sorted(image["id"] for image in train["images"])
    named = {image["id"]: image["file_name"] for image in train["images"]}
    expected = {image_id: [] for image_id in named}
    for each in train["annotations"]:
        expected[each["image_id"]].append((each["category_id"], each["bbox"]))
    for index, image_id in enumerate(dataset.ids):
        info = dataset.get_img_info(index)
        assert (info["height"], info["width"]) == (HEIGHT, WIDTH)
        assert unicodedata.normalize("NFC", info["file_name"]) == named[image_id]
        assert dataset.load_image(index).shape == (HEIGHT, WIDTH, 3)
        found = dataset.load_targets(index)
        boxes = [[x, y, x + w - 1, y + h - 1] for _, (x, y, w, h) in expected[image_id]]
        assert found.boxes.tolist() == np.array(boxes, dtype=np.float32).tolist()
        assert found.labels.tolist() == [category for category, _ in expected[image_id]]
    assert (dataset.missing, dataset.unlisted, dataset.has_masks) == ([], [], False)


def test_names_are_the_same_in_either_spelling(tree):
    root, train, _ = tree
    on_disk = list_images(root / "train/images")
    assert any(name != unicodedata.normalize("NFC", name) for name in on_disk)
    before = opened(root)
    for image in train["images"]:
        image["file_name"] = unicodedata.normalize("NFD", image["file_name"])
    rewrite(root, train)
    after = opened(root)
    assert [after.image_path(i) for i in range(len(after))] == [before.image_path(i) for i in range(len(before))]
    assert after.file_names() == before.file_names()  # so that training and validation stay what they were
    assert all(name == unicodedata.normalize("NFC", name) for name in after.file_names())


def test_training_and_validation_share_no_image_and_lose_none(tree):
    root, train, _ = tree
    parts = [opened(root, name=f"parking_2022_{split}", split=True) for split in ("train", "val")]
    ids = [set(part.ids) for part in parts]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == {image["id"] for image in train["images"]}


def test_files_too_many_and_too_few_are_named(tree, caplog):
    root, train, _ = tree
    gone, *_ = list_images(root / "train/images")
    (root / "train/images" / gone).rename(root / "train/images" / "새로운.png")
    for _ in range(2):  # from the json, then from the cache
        caplog.clear()
        dataset = opened(root)
        assert len(dataset) == len(train["images"]) - 1
        assert dataset.unlisted == ["새로운.png"]
        assert [unicodedata.normalize("NFC", name) for name in dataset.missing] == [unicodedata.normalize("NFC", gone)]
        assert "lists 1 images that are not in" in caplog.text
        assert "새로운.png" in caplog.text
    for name in list_images(root / "train/images"):
        (root / "train/images" / name).unlink()
    with pytest.raises(FileNotFoundError, match="none of the 40 images"):
        opened(root)


def test_masks_categories_and_ids_of_other_kinds(tree):
    root, train, _ = tree
    before = opened(root)
    words = {image["id"]: f"이미지-{image['id']}" for image in train["images"]}
    for image in train["images"]:
        image["id"] = words[image["id"]]
        image["file_name"] = f"train/images/{image['file_name']}"
    for each in train["annotations"]:
        each["image_id"], each["segmentation"] = words[each["image_id"]], [[1, 2]]
    train["categories"] = [{"id": number, "name": f"c{number}", "keypoints": 3} for number in range(14, 0, -1)]
    rewrite(root, train)
    dataset = opened(root)
    assert dataset.contiguous_category_id_to_json_id == {number: number for number in range(1, 15)}
    assert dataset.categories == tuple(f"c{number}" for number in range(1, 15))
    counts = [sorted(data.load_targets(i).labels.tolist() for i in range(len(data))) for data in (before, dataset)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda train: train["annotations"][3].update(category_id=15), "category_id 15"),
        (lambda train: train["annotations"][3].pop("bbox"), "must have a bbox"),
        (lambda train: train["images"][3].pop("file_name"), "file_name"),
        (lambda train: train.pop("images"), "no 'images'"),
    ],
)
def test_what_cannot_be_filled_in_is_an_error(tree, change, message):
    root, train, _ = tree
    change(train)
    rewrite(root, train)
    with pytest.raises(ValueError, match=message):
        opened(root)


def test_an_image_that_cannot_be_read_is_left_to_the_loader(tree, caplog):
    root, train, _ = tree
    for image in train["images"]:
        image.pop("width", None)
    rewrite(root, train)
    path = root / "train/images" / list_images(root / "train/images")[0]
    path.write_bytes(b"no picture")
    dataset = opened(root)
    assert len(dataset) == len(train["images"])
    assert "size of an image is not known" in caplog.text
    index = [dataset.image_path(i) for i in range(len(dataset))].index(path)
    with pytest.raises(ValueError, match=path.name[:10]):
        dataset.load_image(index)


def test_its_annotations_can_be_evaluated(tree):
    root, train, _ = tree
    dataset = opened(root)
    perfect = [
        {"image_id": each["image_id"], "category_id": each["category_id"], "bbox": each["bbox"], "score": 1.0}
        for each in train["annotations"]
    ]
    for engine in ("fast", "pycocotools"):
        assert evaluate_detections(dataset.coco, perfect, "bbox", engine=engine).stats[0] == 1.0


def test_an_unchanged_folder_is_packed_once(tree, monkeypatch):
    root, _, _ = tree
    first = opened(root)
    monkeypatch.setattr("maskrcnn_benchmark.data.datasets.loose_coco.pack_coco_json", None)
    assert list(opened(root).ids) == list(first.ids)
