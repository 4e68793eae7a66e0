"""Keypoints on their way from a COCO json to a batch: packed, filtered, resized, flipped, checked."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.data.build import make_data_loader, make_dataset
from maskrcnn_benchmark.data.datasets import COCODataset, ConcatDataset
from maskrcnn_benchmark.data.datasets.coco_check import check_coco
from maskrcnn_benchmark.data.datasets.coco_json import pack_coco_json
from maskrcnn_benchmark.data.datasets.packed import FORMAT_VERSION, load_packed, save_packed
from maskrcnn_benchmark.data.image_targets import ImageKeypoints, ImageTargets
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM
from maskrcnn_benchmark.structures.keypoint import Keypoints, PersonKeypoints
from tests.data.test_packed import assert_same
from tests.data.tiny_coco import TinyCoco, write_tiny_coco
from tests.data.tiny_keypoints import NAMES, keypoint_annotations, write_tiny_keypoints

FIVE = ("head", "paw_left", "paw_right", "Tail", "ear_left")


@pytest.fixture
def tiny(tmp_path: Path) -> TinyCoco:
    return write_tiny_keypoints(tmp_path / "data")


def make_cfg(tiny: TinyCoco, **changes) -> object:
    cfg = default_cfg.clone()
    settings = {
        "MODEL.KEYPOINT_ON": True,
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 2,
        "DATASETS.CUSTOM": tiny.custom("tiny"),
        "DATASETS.TRAIN": ("tiny",),
        "DATASETS.TEST": ("tiny",),
        "INPUT.MIN_SIZE_TRAIN": (60,),
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "TEST.IMS_PER_BATCH": 4,
        "SOLVER.MAX_ITER": 4,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    cfg.merge_from_list([item for pair in settings.items() for item in pair])
    return cfg


def dataset_of(tiny: TinyCoco, *, training: bool = False, **keywords) -> COCODataset:
    return COCODataset(tiny.ann_file, tiny.root, training, **keywords)


def test_packed_keypoints_survive_the_file(tiny: TinyCoco, tmp_path: Path) -> None:
    packed = pack_coco_json(tiny.ann_file)
    save_packed(packed, tmp_path / "a.packed")
    assert_same(packed, load_packed(tmp_path / "a.packed"))


def test_every_object_against_pycocotools(tiny: TinyCoco) -> None:
    dataset, coco = dataset_of(tiny), COCO(str(tiny.ann_file))
    assert dataset.has_keypoints
    assert dataset.keypoint_names == NAMES
    for index in range(len(dataset)):
        expected = [
            np.float32(item["keypoints"]).reshape(-1, 3)
            for item in coco.imgToAnns[dataset.id_to_img_map[index]]
            if not item["iscrowd"]
        ]
        found = dataset.load_targets(index).keypoints.points
        assert found.shape == (len(expected), 17, 3)
        assert found.tolist() == [points.tolist() for points in expected]


def test_the_published_face_gives_person_keypoints(tiny: TinyCoco) -> None:
    dataset = dataset_of(tiny)
    _, boxes, _ = dataset[dataset.ids.index(40)]
    keypoints = boxes.get_field("keypoints")
    assert isinstance(keypoints, PersonKeypoints)
    assert keypoints.size == boxes.size
    assert keypoints.keypoints[:, :, 2].count_nonzero(dim=1).tolist() == [17, 0]
    assert not dataset_of(tiny, with_keypoints=False)[0][1].has_field("keypoints")


def test_training_needs_ten_visible_keypoints_an_image(tiny: TinyCoco) -> None:
    assert dataset_of(tiny, training=True).ids == [10, 40]
    assert dataset_of(tiny, training=True, with_keypoints=False).ids == [10, 30, 40]
    assert dataset_of(tiny).ids == [10, 20, 30, 40]


@pytest.mark.parametrize(("labelled", "kept"), [(9, False), (10, True)])
def test_the_ten_are_counted_over_all_objects(tmp_path: Path, labelled: int, kept: bool) -> None:
    data = keypoint_annotations()
    for item in data["annotations"]:
        item["keypoints"][2::3] = [0] * 17
    first, second = (item for item in data["annotations"] if item["image_id"] == 40 and not item["iscrowd"])
    first["keypoints"][2:15:3], second["keypoints"][2 : 2 + 3 * (labelled - 5) : 3] = [1] * 5, [2] * (labelled - 5)
    tiny = write_tiny_keypoints(tmp_path / "data", data)
    if kept:
        assert dataset_of(tiny, training=True).ids == [40]
    else:
        with pytest.raises(ValueError, match="none of its 4 images has an object, and 10 visible keypoints"):
            dataset_of(tiny, training=True)


def test_fewer_than_ten_keypoints_of_ones_own(tmp_path: Path) -> None:
    tiny = write_tiny_keypoints(tmp_path / "data", keypoint_annotations(5, FIVE))
    dataset = dataset_of(tiny, training=True)
    assert dataset.keypoint_names == FIVE
    assert dataset.ids == [40]  # one object with all five; three are too few
    flipped = dataset.load_targets(0).flip_left_right().keypoints.points
    original, width = dataset.load_targets(0).keypoints.points, 80
    for place, source in enumerate([0, 2, 1, 3, 4]):  # the paws change places, the only ear does not
        assert flipped[0, place].tolist() == [width - 1 - original[0, source, 0], *original[0, source, 1:]]
    assert type(dataset[0][1].get_field("keypoints")) is Keypoints


def test_without_names_seventeen_are_a_persons(tmp_path: Path) -> None:
    assert dataset_of(write_tiny_keypoints(tmp_path / "a", keypoint_annotations(17, None))).keypoint_names == NAMES
    five = dataset_of(write_tiny_keypoints(tmp_path / "b", keypoint_annotations(5, None)))
    assert five.keypoint_names == ("0", "1", "2", "3", "4")


def random_targets(seed: int) -> ImageTargets:
    rng = np.random.default_rng(seed)
    visibility = rng.integers(0, 3, (4, 17, 1))
    points = rng.uniform(0, 50, (4, 17, 2)) * (visibility > 0)
    corners = rng.uniform(0, 30, (4, 2))
    return ImageTargets(
        boxes=np.concatenate([corners, corners + 10], axis=1).astype(np.float32),
        labels=np.ones(4, dtype=np.int64),
        image_size=(60, 80),
        keypoints=ImageKeypoints(
            np.concatenate([points, visibility], axis=2).astype(np.float32), np.array(PersonKeypoints.FLIP_INDS)
        ),
    )


@pytest.mark.parametrize("seed", range(3))
def test_transforms_equal_those_of_the_structure(seed: int) -> None:
    targets = random_targets(seed)
    keypoints = PersonKeypoints(targets.keypoints.points, (80, 60))
    for found, expected in (
        (targets.resize((90, 100)), keypoints.resize((100, 90))),
        (targets.flip_left_right(), keypoints.transpose(FLIP_LEFT_RIGHT)),
        (targets.flip_top_bottom(), keypoints.transpose(FLIP_TOP_BOTTOM)),
        (targets.flip_left_right().flip_top_bottom(), keypoints.transpose(FLIP_LEFT_RIGHT).transpose(FLIP_TOP_BOTTOM)),
    ):
        np.testing.assert_allclose(found.keypoints.points, expected.keypoints.numpy(), rtol=1e-6, atol=1e-4)


def test_keypoints_move_with_their_boxes() -> None:
    """Where a point lies in its box, in parts of the box's sides, no resize changes; a flip mirrors it."""

    def places(targets: ImageTargets) -> np.ndarray:
        low, high = targets.boxes[:, None, :2], targets.boxes[:, None, 2:]
        return (targets.keypoints.points[..., :2] - low) / (high - low)

    targets = random_targets(0)
    visible = targets.keypoints.points[..., 2] > 0
    np.testing.assert_allclose(places(targets.resize((300, 80)))[visible], places(targets)[visible], rtol=1e-4)
    flipped, partners = targets.flip_left_right(), list(PersonKeypoints.FLIP_INDS)
    seen = flipped.keypoints.points[..., 2] > 0
    assert (seen == visible[:, partners]).all()
    expected = places(targets)[:, partners] * (-1, 1) + (1, 0)
    np.testing.assert_allclose(places(flipped)[seen], expected[seen], rtol=1e-3, atol=1e-4)
    assert not flipped.keypoints.points[~seen].any()


def test_a_training_batch_holds_them(tiny: TinyCoco) -> None:
    cfg = make_cfg(tiny, INPUT__HORIZONTAL_FLIP_PROB_TRAIN=1.0, DATALOADER__ASPECT_RATIO_GROUPING=False)
    loader, _ = make_data_loader(cfg, is_train=True)
    images, targets, indices = next(iter(loader))
    dataset = loader.dataset
    for n, index in enumerate(indices):
        expected = dataset.load_targets(index).resize(images.image_sizes[n]).flip_left_right().keypoints.points
        np.testing.assert_allclose(targets.keypoints[n, : len(expected)].numpy(), expected, rtol=1e-5, atol=1e-3)
        assert not targets.keypoints[n, len(expected) :].any()
    (test_loader,) = make_data_loader(cfg, is_train=False)
    _, targets, _ = next(iter(test_loader))
    assert targets.keypoints.shape == (4, 2, 17, 3)  # an image without objects among them


def test_without_the_switch_nothing_is_loaded(tiny: TinyCoco) -> None:
    loader, _ = make_data_loader(make_cfg(tiny, MODEL__KEYPOINT_ON=False), is_train=True)
    assert not loader.dataset.has_keypoints
    assert next(iter(loader))[1].keypoints is None


def test_data_sets_together(tmp_path: Path, tiny: TinyCoco) -> None:
    same = dataset_of(tiny)
    together = ConcatDataset([same, same])
    assert together.has_keypoints
    assert together.keypoint_names == NAMES
    _, targets, _ = together[SampleKey(0, len(same))]
    assert np.array_equal(targets.keypoints.points, same.load_targets(0).keypoints.points)
    other = dataset_of(write_tiny_keypoints(tmp_path / "five", keypoint_annotations(5, FIVE)))
    with pytest.raises(ValueError, match="must have the same keypoints"):
        ConcatDataset([same, other])
    assert pickle.loads(pickle.dumps(together)).keypoint_names == NAMES


def test_model_and_data_must_fit(tmp_path: Path, tiny: TinyCoco) -> None:
    cfg = make_cfg(tiny, MODEL__ROI_KEYPOINT_HEAD__NUM_CLASSES=5)
    for is_train in (True, False):
        with pytest.raises(ValueError, match=r"has 17 keypoints an object, .* set .*HEAD.NUM_CLASSES 17"):
            make_dataset(cfg, "tiny", is_train=is_train)
    boxes_only = write_tiny_coco(tmp_path / "boxes")
    cfg = make_cfg(boxes_only, MODEL__ROI_BOX_HEAD__NUM_CLASSES=4)
    with pytest.raises(ValueError, match=r"tiny has no keypoints to train on; set MODEL.KEYPOINT_ON to False"):
        make_dataset(cfg, "tiny", is_train=True)
    assert len(make_dataset(cfg, "tiny", is_train=False)) == 6


def faulty(change) -> dict:
    data = keypoint_annotations()
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"][0]["keypoints"].pop(), r"annotation 1 must have keypoints of three numbers each"),
        (lambda d: d["annotations"][0].update(keypoints=["a", 1, 2]), r"annotation 1 must have keypoints of three"),
        (lambda d: d["annotations"][0].update(keypoints=7), r"annotation 1 must have keypoints of three .* got 7"),
    ],
)
def test_faulty_keypoints_are_named(tmp_path: Path, change, message: str) -> None:
    tiny = write_tiny_keypoints(tmp_path / "data", faulty(change))
    with pytest.raises(ValueError, match=message):
        pack_coco_json(tiny.ann_file)
    report = check_coco(tiny.ann_file, tiny.root)
    assert any(error.startswith("annotation 1 must have keypoints") for error in report.errors)


@pytest.mark.parametrize(
    ("change", "numbers"),
    [
        (lambda d: d["annotations"][3].update(keypoints=[1, 2, 2] * 4), "[4, 17]"),
        (lambda d: d["categories"][0].update(keypoints=list(NAMES[:12])), "[12, 17]"),
    ],
)
def test_different_keypoints_stop_models_of_keypoints_alone(tmp_path: Path, change, numbers: str) -> None:
    tiny = write_tiny_keypoints(tmp_path / "data", faulty(change))
    with pytest.raises(ValueError, match="all objects must have the same keypoints"):
        dataset_of(tiny)
    assert len(dataset_of(tiny, with_keypoints=False)) == 4
    report = check_coco(tiny.ann_file, tiny.root)
    assert not report.errors
    assert any(numbers in warning for warning in report.warnings)


def test_a_sound_data_set_passes_the_check(tiny: TinyCoco) -> None:
    report = check_coco(tiny.ann_file, tiny.root)
    assert not report.errors
    assert not report.warnings
    assert report.counts["objects with keypoints"] == 5


def test_annotations_without_keypoints_among_others(tmp_path: Path) -> None:
    tiny = write_tiny_keypoints(tmp_path / "data", faulty(lambda d: d["annotations"][1].pop("keypoints")))
    dataset = dataset_of(tiny)
    points = dataset.load_targets(dataset.ids.index(40)).keypoints.points
    assert points[0, :, 2].all()
    assert not points[1].any()


def test_old_caches_are_not_read(tiny: TinyCoco) -> None:
    dataset = dataset_of(tiny)
    assert f".v{FORMAT_VERSION}." in dataset.packed.path.name
    stale = dataset.packed.path.with_name(dataset.packed.path.name.replace(f".v{FORMAT_VERSION}.", ".v1."))
    stale.write_bytes(b"written by an older version")
    assert dataset_of(tiny).has_keypoints
