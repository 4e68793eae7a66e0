"""The generated shapes data set: its statistics, its files, and that annotations are what is drawn."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from maskrcnn_benchmark.config import CfgNode, cfg
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.synthetic import _run_lengths, ensure_shapes_dataset, image_rng, scene_annotations
from maskrcnn_benchmark.data.synthetic_scene import SHAPE_NAMES, Scene, make_scene

NUM_IMAGES = 120


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(image_rng(0, "train", index)) for index in range(NUM_IMAGES)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return ensure_shapes_dataset(tmp_path_factory.mktemp("shapes"), split="train", num_images=NUM_IMAGES, seed=0)


def test_counts_sizes_and_hidden_parts(scenes: list[Scene]) -> None:
    counts = [sum(not obj.is_crowd for obj in scene.objects) for scene in scenes]
    assert {count for count in counts if count} == set(range(3, 11))
    assert 1 <= counts.count(0) <= 0.1 * NUM_IMAGES
    assert sum(obj.is_crowd for scene in scenes for obj in scene.objects) >= 2
    objects = [obj for scene in scenes for obj in scene.objects if not obj.is_crowd]
    assert set(Counter(obj.label for obj in objects)) == set(range(len(SHAPE_NAMES)))
    sizes = np.array([max(np.ptp(np.nonzero(obj.full), axis=1) + 1) for obj in objects])
    assert sizes.min() >= 10
    assert sizes.max() <= 100
    assert (sizes < 32).mean() > 0.05
    assert (sizes > 70).mean() > 0.1
    hidden = np.array([1 - obj.visible.sum() / obj.full.sum() for obj in objects])
    occluded = (hidden >= 0.2) & (hidden <= 0.6)
    assert 0.28 <= occluded.mean() <= 0.39
    assert (hidden[~occluded] <= 0.1).all()


def test_visible_masks_follow_from_the_painting_order(scenes: list[Scene]) -> None:
    """Repainting the full masks from back to front as numbers gives the visible masks."""
    for scene in scenes[:40]:
        owner = np.zeros(scene.image.shape[:2], dtype=int)
        for number, obj in enumerate(scene.objects, start=1):
            owner[obj.full] = number
        for number, obj in enumerate(scene.objects, start=1):
            np.testing.assert_array_equal(owner == number, obj.visible)


def test_pixels_differ_from_the_background_exactly_on_objects(scenes: list[Scene]) -> None:
    """What is painted is what is masked: away from the objects' edges only noise separates image and background."""
    for scene in scenes[:40]:
        union = np.zeros(scene.image.shape[:2], dtype=np.uint8)
        for obj in scene.objects:
            union |= obj.visible.astype(np.uint8)
        change = np.abs(scene.image.astype(int) - cv2.GaussianBlur(scene.background, (3, 3), 0.5)).mean(axis=2)
        outside = change[cv2.dilate(union, np.ones((5, 5))) == 0]
        assert outside.mean() < 6  # noise of at most 5 grey levels, and what the blur does to thin lines
        for obj in scene.objects:
            inside = cv2.erode(obj.visible.astype(np.uint8), np.ones((3, 3))).astype(bool)
            if inside.sum() >= 30:
                assert change[inside].mean() > 2 * outside.mean()


def test_annotations_decode_to_the_drawn_masks(dataset: tuple[str, str], scenes: list[Scene]) -> None:
    coco = COCO(dataset[1])
    kinds: Counter[str] = Counter()
    for index, scene in enumerate(scenes):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[index + 1]))
        assert len(annotations) == len(scene.objects)
        for annotation, obj in zip(annotations, scene.objects, strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), obj.visible)
            ys, xs = np.nonzero(obj.visible)
            extent = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert annotation["bbox"] == extent
            assert annotation["area"] == obj.visible.sum()
            assert annotation["iscrowd"] == obj.is_crowd
            segmentation = annotation["segmentation"]
            kinds["polygon" if isinstance(segmentation, list) else type(segmentation["counts"]).__name__] += 1
    assert kinds["polygon"] > kinds["str"] > 20
    assert kinds["list"] >= 2  # crowds


def test_regions_with_holes_are_rle_and_others_polygons(scenes: list[Scene]) -> None:
    for scene in scenes[:40]:
        for obj, annotation in zip(scene.objects, scene_annotations(scene, image_id=1, first_id=1), strict=True):
            # Flood the background from a border: pixels of neither background nor object are holes.
            padded = np.pad(obj.visible.astype(np.uint8), 1)
            cv2.floodFill(padded, None, (0, 0), 2, flags=4)
            has_hole = bool((padded == 0).any())
            if not obj.is_crowd and not has_hole:
                assert isinstance(annotation["segmentation"], list)
            if obj.is_crowd or (has_hole and obj.label == SHAPE_NAMES.index("ring")):
                assert isinstance(annotation["segmentation"], dict)


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    arguments = {"split": "val", "num_images": 3, "seed": 5}
    first = ensure_shapes_dataset(tmp_path / "a", **arguments)
    second = ensure_shapes_dataset(tmp_path / "b", **arguments)
    for one, two in zip(sorted(Path(first[0]).iterdir()), sorted(Path(second[0]).iterdir()), strict=True):
        assert one.name == two.name
        assert one.read_bytes() == two.read_bytes()
    assert Path(first[1]).read_bytes() == Path(second[1]).read_bytes()
    larger = ensure_shapes_dataset(tmp_path / "a", split="val", num_images=4, seed=5)
    assert Path(larger[0], "000003.jpg").read_bytes() == Path(first[0], "000003.jpg").read_bytes()


def test_seed_and_split_change_the_images() -> None:
    images = [make_scene(image_rng(*key)).image for key in ((0, "train", 0), (1, "train", 0), (0, "val", 0))]
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_a_finished_data_set_is_left_alone(tmp_path: Path) -> None:
    _, ann_file = ensure_shapes_dataset(tmp_path, split="val", num_images=1)
    before = Path(ann_file).stat().st_mtime_ns
    ensure_shapes_dataset(tmp_path, split="val", num_images=1)
    assert Path(ann_file).stat().st_mtime_ns == before


def _generate(root: Path) -> None:
    ensure_shapes_dataset(root, split="val", num_images=6)


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_generate, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1  # no scratch folder is left
    _, ann_file = ensure_shapes_dataset(tmp_path, split="val", num_images=6)
    assert len(json.loads(Path(ann_file).read_text())["images"]) == 6


def _demo_config(repository: Path, folder: Path) -> CfgNode:
    config = cfg.clone()
    config.merge_from_file(repository / "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml")
    config.DATASETS.DATA_DIR = str(folder)
    config.DATALOADER.NUM_WORKERS = 0
    for entry in config.DATASETS.CUSTOM:
        entry["num_images"] = 9
    return config


def test_the_demo_config_generates_what_it_reads(repository: Path, tmp_path: Path) -> None:
    config = _demo_config(repository, tmp_path)
    (loader,) = make_data_loader(config, is_train=False)
    assert list(loader.dataset.categories) == list(SHAPE_NAMES)
    assert len(SHAPE_NAMES) + 1 == config.MODEL.ROI_BOX_HEAD.NUM_CLASSES
    images, targets, indices = next(iter(loader))
    assert images.tensors.shape[1:] == (3, 224, 224)
    coco = loader.dataset.coco
    for index, boxlist in zip(indices, targets, strict=True):
        annotations = coco.imgToAnns[loader.dataset.id_to_img_map[index]]
        expected = [a["bbox"] for a in annotations if not a["iscrowd"]]
        np.testing.assert_allclose(boxlist.convert("xywh").bbox.numpy().reshape(-1, 4), np.reshape(expected, (-1, 4)))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_images": 0}, "num_images"), ({"colour": "red"}, "unknown key colour"), ({"split": None}, "lacks split")],
)
def test_faulty_entries_of_the_config(repository: Path, tmp_path: Path, change: dict, message: str) -> None:
    config = _demo_config(repository, tmp_path)
    entry = {**config.DATASETS.CUSTOM[1], **change}
    config.DATASETS.CUSTOM[1] = {key: value for key, value in entry.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        make_data_loader(config, is_train=False)


@pytest.mark.parametrize(
    "mask",
    [np.zeros((3, 4), bool), np.ones((3, 4), bool), np.eye(5, dtype=bool), np.arange(12).reshape(4, 3) % 3 == 0],
)
def test_run_lengths_agree_with_pycocotools(mask: np.ndarray) -> None:
    counts = _run_lengths(mask)
    assert sum(counts) == mask.size
    rle = mask_utils.frPyObjects({"size": list(mask.shape), "counts": counts}, *mask.shape)
    np.testing.assert_array_equal(mask_utils.decode(rle).astype(bool), mask)


@pytest.mark.parametrize(
    "arguments", [{"num_images": 0}, {"seed": -1}, {"split": "a/b"}, {"split": ""}, {"image_size": 64}]
)
def test_bad_arguments_are_refused(tmp_path: Path, arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"num_images|split|image_size"):
        ensure_shapes_dataset(tmp_path, **{"split": "val", "num_images": 1, **arguments})
    assert list(tmp_path.iterdir()) == []
