from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.data.datasets import COCODataset, ConcatDataset, ListDataset
from maskrcnn_benchmark.data.datasets.evaluation import evaluate
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.data.transforms import Compose, Flip, Normalize, Resize
from maskrcnn_benchmark.structures.bounding_box import BoxList
from tests.data.tiny_coco import CATEGORIES, TinyCoco, ring_mask

TRANSFORMS = Compose([Resize((40,), 64), Flip(0.5)], Normalize((1.0, 2.0, 3.0), (1.0, 1.0, 1.0)), seed=0)


def opened(tiny: TinyCoco, *, is_train: bool = True, **kwargs) -> COCODataset:
    return COCODataset(tiny.ann_file, tiny.root, is_train, **kwargs)


def rewrite(tiny: TinyCoco) -> None:
    tiny.ann_file.write_text(json.dumps(tiny.data))


def test_targets_by_hand(tiny: TinyCoco) -> None:
    dataset = opened(tiny, is_train=False)
    found = {}
    for index, image_id in dataset.id_to_img_map.items():
        targets = dataset.load_targets(index)
        found[image_id] = (targets.boxes.tolist(), targets.labels.tolist(), targets.image_size)
    # Inclusive pixels: x2 = x + width - 1. The ring and its spot span x 15 .. 53, y 10 .. 48.
    assert found == {
        5: ([[5, 5, 49, 69]], [1], (80, 60)),
        8: ([[4, 6, 33, 55]], [1], (90, 50)),
        11: ([[60, 30, 89, 49]], [3], (50, 90)),  # clipped to the image; the empty box is gone
        17: ([[15, 10, 53, 48], [50.5, 2, 69.5, 41]], [2, 3], (60, 80)),
        42: ([[15, 10, 53, 48]], [2], (60, 80)),  # the crowd is gone
        300: ([], [], (64, 64)),
    }


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_of_real_annotations_equal_those_of_boxlists(external_data, split: str) -> None:
    folder = external_data("coco_tiny")
    dataset = COCODataset(folder / f"annotations/instances_{split}2017.json", folder / f"{split}2017", False)
    for index, image_id in dataset.id_to_img_map.items():
        info = dataset.coco.imgs[image_id]
        rows = [item for item in dataset.coco.imgToAnns[image_id] if not item["iscrowd"]]
        boxes = torch.tensor([item["bbox"] for item in rows], dtype=torch.float32).reshape(-1, 4)
        expected = BoxList(boxes, (info["width"], info["height"]), mode="xywh").convert("xyxy")
        expected.add_field(
            "labels", torch.tensor([dataset.json_category_id_to_contiguous_id[r["category_id"]] for r in rows])
        )
        expected = expected.clip_to_image(remove_empty=True)
        targets = dataset.load_targets(index)
        np.testing.assert_array_equal(targets.boxes, expected.bbox.numpy())
        np.testing.assert_array_equal(targets.labels, expected.get_field("labels").numpy())


def test_a_pickled_data_set_is_small_and_the_same(tiny: TinyCoco) -> None:
    dataset = opened(tiny, transforms=TRANSFORMS)
    assert dataset.coco is dataset.coco
    copy = pickle.loads(pickle.dumps(dataset))
    assert "coco" not in copy.__dict__
    for index in range(len(dataset)):
        first, second = dataset[SampleKey(1, index)], copy[SampleKey(1, index)]
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1].polygons.coords, second[1].polygons.coords)


def test_training_leaves_out_images_without_objects(tiny: TinyCoco) -> None:
    assert opened(tiny, is_train=False).ids == [5, 8, 11, 17, 42, 300]
    assert opened(tiny).ids == [5, 8, 11, 17, 42]
    tiny.data["annotations"][0]["iscrowd"] = 1  # image 42 is left with crowds
    tiny.data["annotations"][5]["bbox"] = [90, 30, 50, 40]  # image 11: outside the image
    rewrite(tiny)
    assert opened(tiny).ids == [5, 8, 17]


@pytest.mark.parametrize("image_id", [17, 42])
def test_rle_with_a_hole_keeps_its_hole(tiny: TinyCoco, image_id: int) -> None:
    dataset = opened(tiny)
    _, boxlist, _ = dataset[dataset.ids.index(image_id)]
    rings = [
        ring.numpy().astype(float).ravel().tolist()
        for ring in boxlist.get_field("masks").instances.polygons[0].polygons
    ]
    mask = mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(rings, 60, 80)))
    np.testing.assert_array_equal(mask.astype(bool), ring_mask(60, 80))


def test_both_doors_lead_to_the_same_sample(tiny: TinyCoco) -> None:
    dataset = opened(tiny, is_train=False, transforms=TRANSFORMS)
    for index in range(len(dataset)):
        tensor, boxlist, same_index = dataset[index]
        pixels, targets, key_index = dataset[SampleKey(0, index)]
        assert same_index == key_index == index
        assert isinstance(boxlist, BoxList)
        torch.testing.assert_close(tensor, TRANSFORMS.normalize(pixels), rtol=0, atol=0)
        assert boxlist.size == (tensor.shape[2], tensor.shape[1])
        np.testing.assert_array_equal(boxlist.bbox.numpy(), targets.boxes)
        np.testing.assert_array_equal(boxlist.get_field("labels").numpy(), targets.labels)
        assert len(boxlist.get_field("masks")) == len(targets)
    assert dataset[-1][2] == len(dataset) - 1
    with pytest.raises(IndexError, match=r"index 6 is out of range for a data set of 6 images"):
        dataset[6]


def test_epochs_differ(tiny: TinyCoco) -> None:
    dataset = opened(tiny, transforms=TRANSFORMS)
    outcomes = {dataset[SampleKey(epoch, 0)][0].tobytes() for epoch in range(8)}
    assert len(outcomes) == 2  # as it is, and mirrored


def test_without_transforms_the_image_is_as_stored(tiny: TinyCoco) -> None:
    dataset = opened(tiny)
    image, _, _ = dataset[0]
    np.testing.assert_array_equal(image, cv2.imread(str(tiny.root / "image_5.jpg")))


def test_without_masks(tiny: TinyCoco) -> None:
    dataset = opened(tiny, with_masks=False)
    assert not dataset.has_masks
    assert dataset.load_targets(0).polygons is None
    assert not dataset[0][1].has_field("masks")


def test_objects_without_polygon_count_only_for_boxes(tiny: TinyCoco) -> None:
    tiny.data["annotations"][4]["segmentation"] = [[1, 1, 2, 2]]  # image 17
    rewrite(tiny)
    index = opened(tiny).ids.index(17)
    assert opened(tiny).load_targets(index).labels.tolist() == [2]
    assert opened(tiny, with_masks=False).load_targets(index).labels.tolist() == [2, 3]


def test_size_in_the_json_must_be_the_file_s(tiny: TinyCoco) -> None:
    tiny.data["images"][1].update(height=60, width=80)  # image 5 is 60 wide and 80 high
    rewrite(tiny)
    with pytest.raises(ValueError, match=r"image .*image_5.jpg is 60x80 pixels, but .*json says 80x60"):
        opened(tiny).load_image(0)


def test_missing_files_are_named(tiny: TinyCoco, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"image folder .*nowhere does not exist"):
        COCODataset(tiny.ann_file, tmp_path / "nowhere", True)
    with pytest.raises(FileNotFoundError, match=r"annotation file .*nowhere.json does not exist"):
        COCODataset(tmp_path / "nowhere.json", tiny.root, True)


def test_a_json_without_anything_to_train_on(tiny: TinyCoco) -> None:
    tiny.data["annotations"].clear()
    rewrite(tiny)
    with pytest.raises(ValueError, match=r"none of its 6 images has an object to train on"):
        opened(tiny)
    assert len(opened(tiny, is_train=False)) == 6


def test_concatenation(tiny: TinyCoco) -> None:
    first, second = opened(tiny, transforms=TRANSFORMS), opened(tiny, is_train=False, transforms=TRANSFORMS)
    both = ConcatDataset([first, second])
    assert len(both) == 11
    assert [both.get_idxs(i) for i in (0, 4, 5, 10)] == [(0, 0), (0, 4), (1, 0), (1, 5)]
    assert list(both.id_to_img_map.values()) == first.ids + second.ids
    assert both.get_img_info(7) == second.get_img_info(2)
    np.testing.assert_array_equal(both.aspect_ratios()[5:], second.aspect_ratios())
    torch.testing.assert_close(both[7][0], second[2][0], rtol=0, atol=0)
    assert both[7][2] == 7
    pixels, targets, index = both[SampleKey(3, 7)]
    np.testing.assert_array_equal(pixels, second[SampleKey(3, 2)][0])
    assert (index, targets.labels.tolist()) == (7, [3])
    np.testing.assert_array_equal(both.load_image(7), second.load_image(2))
    np.testing.assert_array_equal(both.load_targets(7).boxes, second.load_targets(2).boxes)
    with pytest.raises(IndexError, match=r"index 11"):
        both[11]


def test_concatenation_wants_the_same_categories(tiny: TinyCoco, tmp_path: Path) -> None:
    other = {**tiny.data, "categories": list(reversed(CATEGORIES))}
    path = tmp_path / "other.json"
    path.write_text(json.dumps(other))
    with pytest.raises(
        ValueError, match=r"\[7, 3, 900\] and number 2 has \('bar', 'ring', 'kite'\) with ids \[900, 3, 7\]"
    ):
        ConcatDataset([opened(tiny), COCODataset(path, tiny.root, True)])
    with pytest.raises(ValueError, match=r"at least one data set"):
        ConcatDataset([])


def test_list_of_files(tiny: TinyCoco) -> None:
    files = [tiny.root / "image_5.jpg", tiny.root / "image_42.jpg"]
    dataset = ListDataset(files, TRANSFORMS)
    assert len(dataset) == 2
    assert dataset.get_img_info(1) == {"height": 60, "width": 80, "file_name": str(files[1])}
    tensor, boxlist, index = dataset[1]
    assert (tuple(tensor.shape), len(boxlist), index) == ((3, 40, 53), 0, 1)
    assert dataset.aspect_ratios().tolist() == [80 / 60, 60 / 80]


def test_published_face_of_evaluate() -> None:
    from maskrcnn_benchmark import evaluation

    assert evaluate is evaluation.evaluate
