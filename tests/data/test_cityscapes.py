"""Cityscapes' own format: objects of both modes, conversion to COCO's, faulty files and what they lead to, training."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.datasets import CityScapesDataset, COCODataset
from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.keyed import SampleKey
from tests.data.tiny_cityscapes import HEIGHT, OBJECTS, WIDTH, instance_image, write_tiny_cityscapes
from tools.cityscapes.convert_cityscapes_to_coco import main as convert

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CLASSES = ("person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle")
EVALUATED = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
IDS = [Path(place).name for place in sorted(OBJECTS)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tiny_cityscapes(tmp_path / "cityscapes", ("train", "val", "test"))


def opened(tree: Path, mode: str = "mask", **keywords) -> CityScapesDataset:
    return CityScapesDataset(tree / "leftImg8bit", tree / "gtFine", "train", mode, **keywords)


def masks_of(targets: ImageTargets) -> list[np.ndarray]:
    """Each object filled by pycocotools, bool [H, W]."""
    polygons, masks = targets.polygons, []
    for first, last in pairwise(polygons.instance_offsets):
        bounds = polygons.ring_offsets[first : last + 1]
        rings = [polygons.coords[a:b].ravel().tolist() for a, b in pairwise(bounds)]
        rle = mask_utils.merge(mask_utils.frPyObjects(rings, *targets.image_size))
        masks.append(mask_utils.decode(rle) > 0)
    return masks


def test_masks_are_the_visible_pixels(tree: Path) -> None:
    dataset = opened(tree)
    assert dataset.categories == CLASSES
    assert dataset.ids == IDS, "in the order of the paths"
    assert dataset.contiguous_category_id_to_json_id == dict(zip(range(1, 11), range(24, 34), strict=True))
    for index, place in enumerate(sorted(OBJECTS)):
        ids, targets = instance_image(place), dataset.load_targets(index)
        instances = [value for value in np.unique(ids).tolist() if value >= 1000]
        assert [dataset.contiguous_category_id_to_json_id[k] for k in targets.labels.tolist()] == [
            value // 1000 for value in instances
        ]
        for value, box, mask in zip(instances, targets.boxes.tolist(), masks_of(targets), strict=True):
            np.testing.assert_array_equal(mask, ids == value)
            rows, columns = np.nonzero(ids == value)
            assert box == [columns.min(), rows.min(), columns.max(), rows.max()]
        np.testing.assert_array_equal(dataset.load_instance_ids(index), ids)


def test_polygons_are_the_drawn_ones(tree: Path) -> None:
    dataset = opened(tree, "poly")
    index = IDS.index("bonn_000001_000019")
    targets = dataset.load_targets(index)
    # The group is no object; the car reaches behind the person.
    assert [CLASSES[label - 1] for label in targets.labels] == ["car", "person", "caravan", "car"]
    assert targets.boxes.tolist() == [[10, 20, 49, 49], [25, 10, 34, 59], [60, 30, 80, 50], [84, 40, 95, 63]]
    assert targets.polygons.coords[:4].tolist() == [[10, 20], [49, 20], [49, 49], [10, 49]]
    np.testing.assert_array_equal(dataset.load_instance_ids(index), instance_image("bonn/bonn_000001_000019"))
    file = Path(dataset.get_img_info(index)["ann_path"])
    data = json.loads(file.read_text())
    data["objects"][1]["deleted"] = 1
    data["objects"][2]["polygon"] = [[2.75, -3.5], [97.5, 4], [8, 9.9]]
    file.write_text(json.dumps(data))
    targets = opened(tree, "poly").load_targets(index)
    assert targets.labels.tolist() == [1, 6, 3]
    assert targets.boxes[0].tolist() == [2, 0, 95, 9], "truncated to whole pixels, then clipped"


def test_choices_of_objects_and_images(tree: Path) -> None:
    assert opened(tree, evaluated_only=True).categories == EVALUATED
    labels = [opened(tree, evaluated_only=flag).load_targets(3).labels.tolist() for flag in (False, True)]
    assert labels == [[1, 3, 3, 6], [1, 3, 3]], "without the caravan"
    assert len(opened(tree).load_targets(0)) == 4
    assert len(opened(tree, min_area=100).load_targets(0)) == 3, "the person of nine pixels"
    trained = opened(tree, remove_images_without_annotations=True)
    assert trained.ids == [each for each in IDS if each != "bonn_000000_000019"]
    assert opened(tree, mini=2).ids == [IDS[0], IDS[3]]
    assert opened(tree, mini=4).ids == [IDS[0], IDS[2]], "every (4 // mini + 1)-th, as published"
    assert opened(tree, with_masks=False).load_targets(0).polygons is None


def test_infos_images_and_copies(tree: Path) -> None:
    dataset = pickle.loads(pickle.dumps(opened(tree)))
    place = sorted(OBJECTS)[1]
    info = dataset.get_img_info(1)
    assert (info["id"], info["idx"], info["height"], info["width"]) == (IDS[1], 1, HEIGHT, WIDTH)
    assert info["img_path"] == str(tree / "leftImg8bit/train" / f"{place}_leftImg8bit.png")
    assert info["ann_path"] == str(tree / "gtFine/train" / f"{place}_gtFine_instanceIds.png")
    pixels, targets, _ = dataset[SampleKey(0, 1)]
    np.testing.assert_array_equal(pixels, cv2.imread(info["img_path"]))
    assert dataset[1][1].bbox.tolist() == targets.boxes.tolist()
    assert [dataset.map_class_id_to_class_name(label) for label in (0, 10)] == ["__background__", "bicycle"]


def test_packed_once_for_each_mode_and_content(tree: Path) -> None:
    for mode in ("mask", "poly", "mask"):
        opened(tree, mode)
    assert len(list((tree / "gtFine").glob("train.*.packed"))) == 2
    file = tree / "gtFine/train" / "bonn/bonn_000000_000019_gtFine_instanceIds.png"
    cv2.imwrite(str(file), np.full((HEIGHT, WIDTH), 26001, dtype=np.uint16))
    assert opened(tree).load_targets(2).labels.tolist() == [3]


def test_faulty_files_are_named(tree: Path) -> None:
    folder = tree / "gtFine/train/bonn"
    png, polygons = (folder / f"bonn_000000_000019_gtFine_{name}" for name in ("instanceIds.png", "polygons.json"))
    good = png.read_bytes()
    for data, message in (
        (good[:-20], rf"instance image {png} is damaged or truncated"),
        (good[:30] + b"\0" * 30 + good[60:], rf"instance image {png} is damaged"),
        (b"", rf"instance image {png} is damaged or truncated \(0 bytes\)"),
        ((tree / "leftImg8bit/train" / f"{sorted(OBJECTS)[0]}_leftImg8bit.png").read_bytes(), "must have one channel"),
    ):
        png.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            opened(tree)
    png.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"image bonn/bonn_000000_000019_leftImg8bit.png has no annotations .*gtFine_"
    ):
        opened(tree)
    for text, message in (
        ("{", "is not valid JSON"),
        ('{"imgHeight": 64, "imgWidth": 96}', "polygons.json: key 'objects' is missing"),
        ('{"objects": [{"label": "car", "polygon": [[1, 2], [3, 4]]}]}', r"object 0 \(car\) must have a polygon"),
    ):
        polygons.write_text(text)
        with pytest.raises(ValueError, match=message):
            opened(tree, "poly")


def test_faulty_arguments_are_named(tree: Path) -> None:
    for arguments, error, message in (
        ({"split": "valid"}, ValueError, "split must be one of train, val, test"),
        ({"mode": "masks"}, ValueError, "mode one of mask, poly"),
        ({"img_dir": tree / "leftImg"}, FileNotFoundError, r"Cityscapes folder .*leftImg/train does not exist"),
        (
            {"img_dir": tree / "gtFine"},
            ValueError,
            r"none of its 0 images was found: there is no \*/\*_leftImg8bit.png",
        ),
    ):
        with pytest.raises(error, match=message):
            CityScapesDataset(
                **{"img_dir": tree / "leftImg8bit", "ann_dir": tree / "gtFine", "split": "train", **arguments}
            )


@pytest.mark.parametrize("form", [(), ("--polygons",)], ids=["rle", "polygons"])
def test_conversion_to_coco(tree: Path, tmp_path: Path, form: tuple[str, ...], capsys) -> None:
    (tmp_path / "raw").mkdir()
    (tree / "gtFine").rename(tmp_path / "raw" / "gtFine")
    assert convert(["--datadir", str(tmp_path / "raw"), "--outdir", str(tmp_path / "out"), *form]) == 0
    assert "train: 4 images, 8 objects" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").glob("*.json")}
    assert names == {f"instancesonly_filtered_gtFine_{split}.json" for split in ("train", "val", "test")}
    ann_file = tmp_path / "out" / "instancesonly_filtered_gtFine_val.json"
    coco = COCO(str(ann_file))
    assert [(each["id"], each["name"]) for each in coco.dataset["categories"]] == list(enumerate(EVALUATED, start=1))
    label_ids = dict(zip(range(1, 9), (24, 25, 26, 27, 28, 31, 32, 33), strict=True))
    for image, place in zip(coco.dataset["images"], sorted(OBJECTS), strict=True):
        assert image["file_name"] == f"{Path(place).name}_leftImg8bit.png"
        rebuilt = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
        for row in coco.imgToAnns[image["id"]]:
            mask = coco.annToMask(row) > 0
            rebuilt[mask] = label_ids[row["category_id"]]
            assert row["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            assert row["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        labels = instance_image(place) // 1000
        np.testing.assert_array_equal(rebuilt, np.where(np.isin(labels, list(label_ids.values())), labels, 0))
    flat = tmp_path / "images"
    flat.mkdir()
    for path in (tree / "leftImg8bit" / "val").glob("*/*.png"):
        (flat / path.name).write_bytes(path.read_bytes())
    dataset = COCODataset(ann_file, flat, True)
    assert (dataset.categories, len(dataset)) == (EVALUATED, 3)
    np.testing.assert_array_equal(dataset.load_image(0), cv2.imread(str(flat / dataset.get_img_info(0)["file_name"])))


def test_conversion_says_what_is_wrong(tree: Path, tmp_path: Path, capsys) -> None:
    out = ["--outdir", str(tmp_path / "out")]
    assert convert(["--datadir", str(tmp_path / "nowhere"), *out]) == 1
    assert "no gtFine" in capsys.readouterr().err
    assert convert(["--dataset", "cocostuff", "--datadir", str(tree), *out]) == 1
    assert "cocostuff" in capsys.readouterr().err
    (tree / "gtFine/val/bonn/bonn_000001_000019_gtFine_instanceIds.png").write_bytes(b"")
    assert convert(["--datadir", str(tree), *out]) == 1
    assert "bonn_000001_000019_gtFine_instanceIds.png is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "config"), [("mask", "binarymask"), ("poly", "poly")])
def test_a_step_of_training_from_the_published_config(tree: Path, mode: str, config: str) -> None:
    """Data by the published config, into a small network."""
    from maskrcnn_benchmark.modeling.detector import build_detection_model

    published = global_cfg.clone()
    published.merge_from_file(str(CONFIGS / "cityscapes" / f"e2e_mask_rcnn_R_50_FPN_1x_{config}.yaml"))
    cfg = global_cfg.clone()
    cfg.merge_from_file(str(CONFIGS / "demo" / "mask_rcnn_R_18_FPN_shapes.yaml"))
    cfg.DATASETS = published.DATASETS.clone()
    cfg.DATASETS.DATA_DIR = str(tree.parent)
    num_classes = published.MODEL.ROI_BOX_HEAD.NUM_CLASSES
    cfg.merge_from_list(["MODEL.ROI_BOX_HEAD.NUM_CLASSES", num_classes, "MODEL.DEVICE", "cpu"])
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 3])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", 64, "INPUT.MAX_SIZE_TRAIN", 96])
    loader, _ = make_data_loader(cfg)
    assert (loader.dataset.mode, len(loader.dataset), len(loader.dataset.categories)) == (mode, 3, num_classes - 1)
    torch.manual_seed(0)
    model = build_detection_model(cfg).train()
    images, targets, _ = next(iter(loader))
    losses = model(images, targets)
    sum(losses.values()).backward()
    assert "loss_mask" in losses
    assert all(torch.isfinite(loss) for loss in losses.values())
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
