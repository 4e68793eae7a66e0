"""Names of data sets and weights lead to the published paths and addresses (data/catalog.json, copied facts)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.config.catalog import (
    DatasetCatalog,
    DatasetEntry,
    ModelCatalog,
    resolve_dataset,
    resolve_model,
)

PUBLISHED = json.loads((Path(__file__).parent / "data" / "catalog.json").read_text(encoding="utf-8"))


@pytest.fixture
def cfg(tmp_path):
    cfg = global_cfg.clone()
    cfg.DATASETS.DATA_DIR = str(tmp_path)
    return cfg


def touch(*paths):
    for path in paths:
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True)


def test_published_data_sets():
    own = {"parking_2022_train", "parking_2022_val", "parking_2022_test"}
    assert set(DatasetCatalog.DATASETS) == own | set(PUBLISHED["datasets"])
    assert {name: DatasetCatalog.DATASETS[name] for name in PUBLISHED["datasets"]} == PUBLISHED["datasets"]


def test_published_weights():
    assert {name: ModelCatalog.get(name) for name in ModelCatalog.names()} == PUBLISHED["models"]


@pytest.mark.parametrize("layout", ["data", "."])
def test_a_coco_data_set_below_the_data_folder(cfg, tmp_path, layout):
    images, annotations = tmp_path / layout / "val2017", tmp_path / layout / "annotations" / "instances_val2017.json"
    touch(images, annotations)
    entry = resolve_dataset(cfg, "coco_2017_val")
    assert (entry.name, entry.factory) == ("coco_2017_val", "COCODataset")
    assert {key: Path(path).resolve() for key, path in entry.args.items()} == {"root": images, "ann_file": annotations}


def test_data_goes_before_the_folder_itself(cfg, tmp_path):
    for place in (tmp_path, tmp_path / "data"):
        touch(place / "val2017", place / "annotations" / "instances_val2017.json")
    assert resolve_dataset(cfg, "coco_2017_val").args["root"] == str(tmp_path / "data" / "val2017")


# The original's places below its data folder, and what NVIDIA's file calls the same.
@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("coco_2014_minival", {"root": "coco/val2014", "ann_file": "coco/annotations/instances_minival2014.json"}),
        ("voc_2012_val", {"data_dir": "voc/VOC2012"}),
        (
            "voc_2007_train_cocostyle",
            {"root": "voc/VOC2007/JPEGImages", "ann_file": "voc/VOC2007/Annotations/pascal_train2007.json"},
        ),
        (
            "cityscapes_fine_instanceonly_seg_val_cocostyle",
            {
                "root": "cityscapes/images",
                "ann_file": "cityscapes/annotations/instancesonly_filtered_gtFine_val.json",
            },
        ),
        ("cityscapes_mask_instance_val", {"img_dir": "cityscapes/leftImg8bit", "ann_dir": "cityscapes/gtFine"}),
        (
            "keypoints_coco_2014_val",
            {"root": "coco/val2014", "ann_file": "coco/annotations/person_keypoints_val2014.json"},
        ),
        ("keypoints_coco_2014_val", {"root": "val2014", "ann_file": "data/annotations/person_keypoints_val2014.json"}),
    ],
)
def test_the_original_s_folders(cfg, tmp_path, name, places):
    touch(*(tmp_path / place for place in places.values()))
    args = resolve_dataset(cfg, name).args
    assert {key: args[key] for key in places} == {key: str(tmp_path / place) for key, place in places.items()}


def test_a_catalogue_of_one_s_own_has_no_other_places(cfg, tmp_path):
    touch(tmp_path / "coco" / "mine", tmp_path / "mine.json")
    cfg.DATASETS.CUSTOM = [{"name": "coco_mine", "img_dir": "mine", "ann_file": "mine.json"}]
    with pytest.raises(FileNotFoundError, match="coco_mine: no images"):
        resolve_dataset(cfg, "coco_mine")


def test_the_environment_goes_before_the_config(cfg, tmp_path, monkeypatch):
    for place in ("a", "b"):
        touch(tmp_path / place / "val2017", tmp_path / place / "annotations" / "instances_val2017.json")
    cfg.DATASETS.DATA_DIR = str(tmp_path / "a")
    assert resolve_dataset(cfg, "coco_2017_val").args["root"] == str(tmp_path / "a" / "val2017")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "b"))
    assert resolve_dataset(cfg, "coco_2017_val").args["root"] == str(tmp_path / "b" / "val2017")


def test_missing_files_name_both_places_and_the_remedy(cfg, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        resolve_dataset(cfg, "coco_2017_val")
    message = str(caught.value)
    for part in ("coco_2017_val", f"{tmp_path}/data/", "DATASETS.DATA_DIR", "DATA_DIR", str(tmp_path)):
        assert part in message
    assert f"{tmp_path}/val2017" in message
    touch(tmp_path / "val2017")
    with pytest.raises(FileNotFoundError, match=r"no annotations at .*instances_val2017.json"):
        resolve_dataset(cfg, "coco_2017_val")


def test_an_unknown_name(cfg):
    with pytest.raises(KeyError, match=r"no data set 'coco_2017_vall'; did you mean coco_2017_val\?.*DATASETS.CUSTOM"):
        resolve_dataset(cfg, "coco_2017_vall")


def test_pascal_voc_by_its_keys(cfg, tmp_path):
    touch(tmp_path / "data" / "VOC2007")
    entry = resolve_dataset(cfg, "voc_2007_test")
    expected = {"data_dir": str(tmp_path / "data" / "VOC2007"), "split": "test"}
    assert entry == DatasetEntry("voc_2007_test", "PascalVOCDataset", expected)


# The name says "voc"; the keys say COCO format; the keys are right.
def test_custom_entries_and_never_the_name(cfg, tmp_path, monkeypatch):
    touch(tmp_path / "pictures", tmp_path / "data" / "voc.json")
    entry = {"name": "my_voc", "img_dir": "pictures", "ann_file": "voc.json"}
    cfg.DATASETS.CUSTOM = [entry]
    found = resolve_dataset(cfg, "my_voc")
    assert found.factory == "COCODataset"
    assert found.args == {"root": str(tmp_path / "pictures"), "ann_file": str(tmp_path / "data" / "voc.json")}
    cfg.DATASETS.CUSTOM = [{**entry, "img_dir": str(tmp_path / "pictures")}]
    assert resolve_dataset(cfg, "my_voc") == found
    cfg.DATASETS.DATA_DIR = "/nowhere"
    monkeypatch.chdir(tmp_path)
    cfg.DATASETS.CUSTOM = [{**entry, "ann_file": "data/voc.json"}]
    assert resolve_dataset(cfg, "my_voc").args == {"root": "pictures", "ann_file": "data/voc.json"}


def test_custom_entries_with_a_factory(cfg, tmp_path):
    shapes = {"name": "drawn", "factory": "shapes", "root": "shapes", "split": "train", "num_images": 3}
    cfg.DATASETS.CUSTOM = [shapes, {"name": "own", "factory": "MyDataset", "depth": 2}]
    args = {"root": str(tmp_path / "shapes"), "split": "train", "num_images": 3}
    assert resolve_dataset(cfg, "drawn") == DatasetEntry("drawn", "shapes", args), "nothing needs to be there yet"
    assert resolve_dataset(cfg, "own") == DatasetEntry("own", "MyDataset", {"depth": 2})


def test_a_custom_entry_goes_before_the_catalogue(cfg, tmp_path):
    touch(tmp_path / "a", tmp_path / "b.json")
    cfg.DATASETS.CUSTOM = [{"name": "coco_2017_val", "img_dir": "a", "ann_file": "b.json"}]
    assert resolve_dataset(cfg, "coco_2017_val").args["root"] == str(tmp_path / "a")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "a", "img_dir": "b"}], r"CUSTOM\[0\] lacks ann_file"),
        ([{"name": "a", "img_dir": "b", "ann_file": "c", "split": "d"}], "unknown key split"),
        (
            [{"name": "a", "data_dir": "b", "split": "c", "mode": "d"}],
            "unknown key mode; it needs data_dir, name, split",
        ),
        ([{"name": "a", "img_dir": "b", "ann_dir": "c"}], "lacks split"),
        ([{"name": "a", "img_dir": "b", "ann_file": "c"}] * 2, r"CUSTOM\[1\]: the name 'a' is given twice"),
        (["a"], "must be a mapping"),
        ([{"name": "a", "factory": "shapes", "root": "b"}], "lacks num_images and lacks split"),
    ],
)
def test_a_faulty_custom_entry(cfg, entries, message):
    cfg.DATASETS.CUSTOM = entries
    with pytest.raises(ValueError, match=message):
        resolve_dataset(cfg, "a")


CATALOG = """
class DatasetCatalog:
    DATA_DIR = {data_dir!r}
    DATASETS = {{
        "birds": {{"img_dir": "birds/images", "ann_file": "birds/train.json"}},
        "special": {{"factory": "MyDataset", "root": "birds", "depth": 3}},
        "riddle": {{"where": "birds"}},
    }}

class ModelCatalog:
    @staticmethod
    def get(name):
        if name == "mine":
            return "https://example.org/mine.pth"
        raise RuntimeError("model not present in the catalog {{}}".format(name))
"""


def test_a_catalogue_file_of_ones_own(cfg, tmp_path):
    touch(tmp_path / "root" / "birds" / "images", tmp_path / "root" / "birds" / "train.json")
    touch(tmp_path / "val2017", tmp_path / "annotations" / "instances_val2017.json")
    file = tmp_path / "catalog.py"
    file.write_text(CATALOG.format(data_dir=str(tmp_path / "root")))
    cfg.merge_from_list(["PATHS_CATALOG", str(file)])
    assert resolve_dataset(cfg, "coco_2017_val").factory == "COCODataset", "the package's names stay known"
    cfg.DATASETS.DATA_DIR = global_cfg.DATASETS.DATA_DIR
    birds = resolve_dataset(cfg, "birds")
    assert birds.factory == "COCODataset"
    assert birds.args["root"] == str(tmp_path / "root" / "birds" / "images")
    assert resolve_dataset(cfg, "special") == DatasetEntry(
        "special", "MyDataset", {"root": str(tmp_path / "root" / "birds"), "depth": 3}
    )
    with pytest.raises(ValueError, match="riddle: an entry with the keys where"):
        resolve_dataset(cfg, "riddle")
    assert resolve_model(cfg, "catalog://mine") == "https://example.org/mine.pth"
    name = "ImageNetPretrained/MSRA/R-50"
    assert resolve_model(cfg, f"catalog://{name}") == PUBLISHED["models"][name]


def test_faulty_catalogue_files(cfg, tmp_path):
    cfg.PATHS_CATALOG = str(tmp_path / "nowhere.py")
    with pytest.raises(FileNotFoundError, match=r"PATHS_CATALOG: file .*nowhere.py does not exist"):
        resolve_dataset(cfg, "coco_2017_val")
    for name, text, message in (("a.py", "import nothing_such", "nothing_such"), ("a.txt", "", "not a Python file")):
        (tmp_path / name).write_text(text)
        cfg.PATHS_CATALOG = str(tmp_path / name)
        with pytest.raises(ValueError, match=f"PATHS_CATALOG: .*{name} .*{message}"):
            resolve_dataset(cfg, "coco_2017_val")


def test_unknown_weights(cfg):
    with pytest.raises(KeyError, match=r"MODEL.WEIGHT catalog://ImageNet/X: .*ImageNetPretrained/MSRA/R-50"):
        resolve_model(cfg, "catalog://ImageNet/X")


def test_the_published_face_of_the_catalogue():
    found = DatasetCatalog.get("coco_2017_train")
    paths = PUBLISHED["datasets"]["coco_2017_train"]
    assert found == {"factory": "COCODataset", "args": {"root": paths["img_dir"], "ann_file": paths["ann_file"]}}
    with pytest.raises(KeyError, match="nothing"):
        DatasetCatalog.get("nothing")
