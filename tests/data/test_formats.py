"""Every format of DATASETS.CUSTOM gives the same samples of the same pictures, and says what is wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.config.catalog import custom_entries
from maskrcnn_benchmark.data import make_data_loader, make_dataset
from maskrcnn_benchmark.data.datasets.subset import is_validation, listed_names
from tests.data.tiny_formats import CLASSES, FORMATS, HEIGHT, OBJECTS, WIDTH, WITHOUT_MASKS, many_objects, masks_of


@pytest.fixture
def cfg():
    cfg = global_cfg.clone()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.MASK_ON", True, "MODEL.ROI_BOX_HEAD.NUM_CLASSES", 3])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", 48, "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0])
    cfg.merge_from_list(["DATASETS.TRAIN", "own", "DATASETS.TEST", "own"])
    return cfg


def use(cfg, entry: dict, **keys) -> None:
    cfg.DATASETS.CUSTOM = [{"name": "own", **entry, **keys}]


@pytest.mark.parametrize("kind", FORMATS)
def test_all_formats_give_the_same_samples(cfg, tmp_path: Path, kind: str) -> None:
    use(cfg, FORMATS[kind](tmp_path / "data"))
    cfg.MODEL.MASK_ON = kind not in WITHOUT_MASKS
    dataset = make_dataset(cfg, "own", is_train=False)
    assert dataset.categories == CLASSES
    found = {}
    for index in range(len(dataset)):
        info, targets = dataset.get_img_info(index), dataset.load_targets(index)
        assert (info["height"], info["width"]) == (HEIGHT, WIDTH)
        name = info["file_name"].removeprefix("images/train/").removesuffix(".jpg")
        corners = [
            (CLASSES[label - 1], x1, y1, x2 - x1 + 1, y2 - y1 + 1)
            for label, (x1, y1, x2, y2) in zip(targets.labels, targets.boxes.tolist(), strict=True)
        ]
        found[name] = corners
        assert dataset.load_image(index).shape == (HEIGHT, WIDTH, 3)
        if kind not in WITHOUT_MASKS:
            for mask, (_, x, y, width, height) in zip(masks_of(targets), OBJECTS[name], strict=True):
                expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
                expected[y : y + height, x : x + width] = True
                np.testing.assert_array_equal(mask, expected)
    assert found == OBJECTS
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.load_targets(0).boxes, dataset.load_targets(0).boxes)


@pytest.mark.parametrize("kind", FORMATS)
def test_pycocotools_sees_the_packed_annotations(cfg, tmp_path: Path, kind: str) -> None:
    use(cfg, FORMATS[kind](tmp_path / "data"))
    cfg.MODEL.MASK_ON = kind not in WITHOUT_MASKS
    dataset = make_dataset(cfg, "own", is_train=False)
    coco = dataset.coco
    assert {each["name"] for each in coco.loadCats(coco.getCatIds())} == set(CLASSES)
    for index in range(len(dataset)):
        name = dataset.get_img_info(index)["file_name"].removeprefix("images/train/").removesuffix(".jpg")
        rows = coco.imgToAnns[dataset.id_to_img_map[index]]
        assert [(coco.cats[row["category_id"]]["name"], *row["bbox"]) for row in rows] == OBJECTS[name]
        assert [row["area"] for row in rows] == [width * height for *_, width, height in OBJECTS[name]]
        if kind not in WITHOUT_MASKS:
            assert [int(coco.annToMask(row).sum()) for row in rows] == [row["area"] for row in rows]
    assert 0 not in coco.anns, "pycocotools takes the id 0 for no match"


@pytest.mark.parametrize("kind", FORMATS)
def test_background_is_dropped_or_kept(cfg, tmp_path: Path, kind: str) -> None:
    entry = FORMATS[kind](tmp_path / "data")
    cfg.MODEL.MASK_ON = kind not in WITHOUT_MASKS
    use(cfg, entry)
    assert len(make_dataset(cfg, "own", is_train=True)) == 3
    assert len(make_dataset(cfg, "own", is_train=False)) == 4
    cfg.DATASETS.KEEP_BACKGROUND = True
    assert len(make_dataset(cfg, "own", is_train=True)) == 4
    use(cfg, entry, keep_background=False)
    assert len(make_dataset(cfg, "own", is_train=True)) == 3, "the entry goes before the key for all"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_split_by_names(cfg, tmp_path: Path, kind: str) -> None:
    pictures = many_objects(20)
    entry = FORMATS[kind](tmp_path / "data", pictures)
    entry.pop("split", None)
    cfg.MODEL.MASK_ON = kind not in WITHOUT_MASKS
    names = {}
    for split in ("train", "val"):
        use(cfg, entry, split=split, val_fraction=0.3)
        dataset = make_dataset(cfg, "own", is_train=split == "train")
        names[split] = {dataset.get_img_info(index)["file_name"] for index in range(len(dataset))}
    assert not names["train"] & names["val"]
    assert {Path(name).stem for name in names["train"] | names["val"]} == set(pictures)
    assert 2 <= len(names["val"]) <= 10


def test_the_split_is_a_rule_of_the_name_alone() -> None:
    """These names are in these splits for ever, or published splits would mix."""
    names = [f"{number:03d}.jpg" for number in range(2000)]
    chosen = [name for name in names if is_validation(name, 0.25)]
    assert 430 < len(chosen) < 570
    assert set(chosen) < {name for name in names if is_validation(name, 0.5)}
    validation = [name for name in names[:12] if is_validation(name, 0.5)]
    assert validation == ["000.jpg", "001.jpg", "003.jpg", "006.jpg", "007.jpg", "009.jpg", "010.jpg"]


def test_a_list_of_images(cfg, tmp_path: Path) -> None:
    entry = FORMATS["labelme"](tmp_path / "data")
    listed = tmp_path / "train.txt"
    listed.write_text("sub/c.jpg\n\nempty\n  a.jpg\n")
    use(cfg, entry, list_file=str(listed))
    dataset = make_dataset(cfg, "own", is_train=False)
    names = [dataset.get_img_info(index)["file_name"] for index in range(len(dataset))]
    assert names == ["a.jpg", "empty.jpg", "sub/c.jpg"]
    assert len(make_dataset(cfg, "own", is_train=True)) == 2, "an image without objects may be listed"
    listed.write_text("nowhere.jpg\n")
    with pytest.raises(ValueError, match=r"train.txt: there is no image 'nowhere.jpg' among the 4"):
        make_dataset(cfg, "own", is_train=False)
    listed.write_text("\n")
    with pytest.raises(ValueError, match=r"train.txt lists no image"):
        make_dataset(cfg, "own", is_train=False)


def test_whole_names_go_before_stems(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("b.jpg\nx/b.jpg 1\n")
    assert listed_names(["x/b.jpg", "b.jpg", "c.jpg"], tmp_path / "list") == [0, 1]
    (tmp_path / "list").write_text("/data/images/c.jpg\n")
    assert listed_names(["x/b.jpg", "b.jpg", "c.jpg"], tmp_path / "list") == [2]


@pytest.mark.parametrize(
    ("entry", "factory", "keys"),
    [
        ({"format": "coco", "img_dir": "i", "ann_file": "a"}, "COCODataset", {"img_dir": "i", "ann_file": "a"}),
        ({"format": "voc", "img_dir": "i", "ann_dir": "a"}, "VOCXmlDataset", {"xml_dir": "a"}),
        ({"format": "voc", "data_dir": "i", "split": "a"}, "PascalVOCDataset", {"data_dir": "i"}),
        ({"format": "labelme", "img_dir": "i"}, "LabelmeDataset", {"img_dir": "i", "json_dir": "i"}),
        (
            {"format": "yolo", "img_dir": "p/images/images/a", "classes": ["x"]},
            "YOLODataset",
            {"txt_dir": "p/images/labels/a"},
        ),
        ({"format": "yolo", "data_yaml": "d", "split": "val"}, "YOLODataset", {"data_yaml": "d"}),
        ({"format": "instance_png", "img_dir": "i", "ann_dir": "m"}, "InstancePNGDataset", {"mask_dir": "m"}),
        ({"format": "cityscapes", "img_dir": "i", "ann_dir": "a", "split": "val"}, "CityScapesDataset", {}),
        ({"img_dir": "i", "ann_dir": "a", "split": "val"}, "CityScapesDataset", {"ann_dir": "a"}),
        ({"json_dir": "j"}, "LabelmeDataset", {}),
    ],
)
def test_an_entry_is_known_by_its_keys_or_its_format(cfg, entry: dict, factory: str, keys: dict) -> None:
    use(cfg, entry)
    found = custom_entries(cfg)["own"]
    assert found["factory"] == factory
    assert found.items() >= keys.items()
    assert "format" not in found


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"format": "csv", "img_dir": "i"},
            r"the format 'csv' is not known; there are coco \(img_dir, ann_file\), voc",
        ),
        ({"img_dir": "i", "masks": "m"}, r"lacks ann_file .*known by their keys: .*instance_png \(img_dir, mask_dir\)"),
        ({"img_dir": "i", "mask_dir": "m", "json_dir": "j"}, r"has the unknown key mask_dir"),
        ({"format": "yolo", "img_dir": "pictures", "classes": ["a"]}, r"lacks txt_dir"),
        ({"json_dir": "j", "val_fraction": 2, "split": "val"}, r"val_fraction must be a number between 0 and 1"),
        ({"json_dir": "j", "val_fraction": 0.2}, r"with val_fraction, split must be train or val, but is None"),
    ],
)
def test_a_faulty_entry(cfg, entry: dict, message: str) -> None:
    use(cfg, entry)
    with pytest.raises(ValueError, match=message):
        custom_entries(cfg)


@pytest.mark.parametrize("kind", ["voc", "labelme", "instance_png"])
def test_images_without_annotations_are_left_out_and_named(cfg, tmp_path: Path, caplog, kind: str) -> None:
    use(cfg, FORMATS[kind](tmp_path / "data"))
    cfg.MODEL.MASK_ON = kind not in WITHOUT_MASKS
    (path,) = [each for each in (tmp_path / "data").rglob("b*") if each.suffix in (".xml", ".json", ".png")]
    path.unlink()
    with caplog.at_level("WARNING"):
        assert len(make_dataset(cfg, "own", is_train=False)) == 3
    assert "1 images of" in caplog.text
    assert "such as b.jpg" in caplog.text


@pytest.mark.parametrize("kind", ["voc", "labelme", "instance_png"])
def test_annotations_without_an_image(cfg, tmp_path: Path, kind: str) -> None:
    use(cfg, FORMATS[kind](tmp_path / "data"))
    cfg.MODEL.MASK_ON = kind not in WITHOUT_MASKS
    next((tmp_path / "data").rglob("b.jpg")).unlink()
    with pytest.raises(ValueError, match=r"annotation file .*/b(_mask)?\.(xml|json|png) has no image in"):
        make_dataset(cfg, "own", is_train=False)


def test_two_images_with_one_annotation_file(cfg, tmp_path: Path) -> None:
    use(cfg, FORMATS["labelme"](tmp_path / "data"))
    cv2.imwrite(str(tmp_path / "data" / "a.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a.jpg and .*a.png share the annotation file .*a.json"):
        make_dataset(cfg, "own", is_train=False)


def test_the_real_penn_fudan_set_without_conversion(external_data, cfg) -> None:
    source = external_data("PennFudanPed")
    entry = {"img_dir": str(source / "PNGImages"), "mask_dir": str(source / "PedMasks"), "classes": ["person"]}
    use(cfg, entry)
    cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = 2
    dataset = make_dataset(cfg, "own", is_train=False)
    assert (len(dataset), dataset.categories) == (170, ("person",))
    assert sum(len(dataset.load_targets(index)) for index in range(170)) == 423
    for index in range(0, 170, 17):
        info = dataset.get_img_info(index)
        mask = cv2.imread(str(source / "PedMasks" / f"{Path(info['file_name']).stem}_mask.png"), cv2.IMREAD_UNCHANGED)
        for value, found in enumerate(masks_of(dataset.load_targets(index)), start=1):
            np.testing.assert_array_equal(found, mask == value)


def test_coco_tiny_without_conversion(external_data, cfg) -> None:
    root = external_data("coco_tiny")
    ann_file = next((root / "annotations").glob("*train2017*.json"))
    use(cfg, {"img_dir": str(root / "train2017"), "ann_file": str(ann_file)})
    cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = 81
    loader, _ = make_data_loader(cfg)
    images, targets, _ = next(iter(loader))
    assert images.tensors.shape[0] == 2
    assert targets.labels.max() <= 80


@pytest.mark.parametrize("kind", ["voc", "labelme", "instance_png"])
def test_an_image_of_another_size_names_its_annotations(cfg, tmp_path: Path, kind: str) -> None:
    use(cfg, FORMATS[kind](tmp_path / "data"))
    cfg.MODEL.MASK_ON = kind not in WITHOUT_MASKS
    dataset = make_dataset(cfg, "own", is_train=False)
    cv2.imwrite(str(next((tmp_path / "data").rglob("c.jpg"))), np.zeros((HEIGHT, 99, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=rf"c.jpg is 99x48 pixels, but .*/sub/c(_mask)?\.(xml|json|png) says {WIDTH}x"):
        dataset.load_image(3)
