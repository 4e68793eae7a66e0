from __future__ import annotations

import itertools
import json
import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from maskrcnn_benchmark.data.datasets.coco_entries import decode_rle, polygons_of
from maskrcnn_benchmark.data.datasets.coco_json import pack_coco_json
from maskrcnn_benchmark.data.datasets.packed import PackedAnnotations, load_packed, open_packed, save_packed
from tests.data.tiny_coco import TinyCoco, ring_mask, tiny_annotations


def as_written(packed: PackedAnnotations) -> list[np.ndarray]:
    return [
        packed.image_ids, packed.image_sizes, packed.file_names.data, packed.file_names.offsets, packed.category_ids,
        packed.category_names.data, packed.category_names.offsets, packed.annotation_offsets, packed.boxes,
        packed.labels, packed.iscrowd, packed.areas, packed.polygon_offsets, packed.ring_offsets, packed.coords[:],
        packed.keypoint_names.data, packed.keypoint_names.offsets, packed.keypoint_offsets, packed.keypoints,
    ]  # fmt: skip


def assert_same(first: PackedAnnotations, second: PackedAnnotations) -> None:
    for a, b in zip(as_written(first), as_written(second), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def check_against_pycocotools(ann_file: Path) -> None:
    """Every entry of the packed arrays against pycocotools' reading of the same file; masks pixel for pixel."""
    packed = pack_coco_json(ann_file)
    coco = COCO(str(ann_file))
    assert packed.image_ids.tolist() == sorted(coco.getImgIds())
    assert packed.category_ids.tolist() == coco.getCatIds()
    for row, image_id in enumerate(packed.image_ids.tolist()):
        info = coco.loadImgs(image_id)[0]
        height, width = info["height"], info["width"]
        assert packed.image_sizes[row].tolist() == [height, width]
        assert packed.file_names[row] == info["file_name"]
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        begin, end = packed.annotation_offsets[row : row + 2].tolist()
        assert end - begin == len(annotations)
        for index, item in zip(range(begin, end), annotations, strict=True):
            assert packed.boxes[index].tolist() == np.float32(item["bbox"]).tolist()
            assert packed.category_ids[packed.labels[index] - 1] == item["category_id"]
            assert packed.iscrowd[index] == bool(item["iscrowd"])
            assert packed.areas[index] == np.float32(item["area"])
            first, last = packed.keypoint_offsets[index : index + 2]
            assert packed.keypoints[first:last].ravel().tolist() == np.float32(item.get("keypoints", [])).tolist()
            coords, ring_offsets, instance_offsets = packed.take_polygons(np.array([index]))
            rings = [coords[a:b].ravel() for a, b in itertools.pairwise(ring_offsets)]
            assert instance_offsets.tolist() == [0, len(rings)]
            if item["iscrowd"]:
                assert not rings
            elif isinstance(item["segmentation"], list):
                assert [ring.tolist() for ring in rings] == [np.float32(p).tolist() for p in item["segmentation"]]
            else:
                polygons = mask_utils.frPyObjects([ring.astype(float).tolist() for ring in rings], height, width)
                np.testing.assert_array_equal(mask_utils.decode(mask_utils.merge(polygons)), coco.annToMask(item))


def test_packed_equals_pycocotools(tiny: TinyCoco) -> None:
    check_against_pycocotools(tiny.ann_file)


@pytest.mark.parametrize("split", ["train", "val"])
def test_packed_equals_pycocotools_on_real_annotations(external_data, split: str) -> None:
    check_against_pycocotools(external_data("coco_tiny") / "annotations" / f"instances_{split}2017.json")


def test_all_kinds_of_rle_give_the_same_polygons() -> None:
    mask = ring_mask(60, 80)
    compressed = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    uncompressed = tiny_annotations()["annotations"][0]["segmentation"]
    assert isinstance(uncompressed["counts"], list)
    kinds = [compressed, {**compressed, "counts": compressed["counts"].decode()}, uncompressed]
    for kind in kinds:
        np.testing.assert_array_equal(decode_rle(kind, height=60, width=80), mask)
    expected = [ring.tolist() for ring in polygons_of(kinds[0], height=60, width=80)]
    assert len(expected) == 2  # the square with its hole, the spot
    for kind in kinds[1:]:
        assert [ring.tolist() for ring in polygons_of(kind, height=60, width=80)] == expected


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (300, 200)])
def test_rle_of_random_masks(shape: tuple[int, int], density: float) -> None:
    noise = np.random.default_rng(0).random(shape)
    for mask in (noise < density, np.repeat(noise, 7, axis=0)[: shape[0]] < density):
        rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
        np.testing.assert_array_equal(decode_rle(rle, height=shape[0], width=shape[1]), mask)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("000", "add up to 0"),
        ("zz", "not a string in COCO's compression"),
        ("PP", "not a string in COCO's compression"),
        ("", "not a string in COCO's compression"),
        ("a b", "not a string in COCO's compression"),
        ([-5, 105], "non-negative integers"),
        ([1.5, 98.5], "non-negative integers"),
        ([50, 49], "add up to 99, not to 10 x 10"),
    ],
)
def test_faulty_rle_is_refused(counts, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_rle({"size": [10, 10], "counts": counts}, height=10, width=10)


def test_polygons_without_area_are_left_out() -> None:
    rings = polygons_of([[1, 1, 2, 2], [0, 0, 4, 0, 4, 4]], height=9, width=9)
    assert [ring.tolist() for ring in rings] == [[[0, 0], [4, 0], [4, 4]]]


def test_save_and_load_keep_every_bit(tiny: TinyCoco, tmp_path: Path) -> None:
    packed = pack_coco_json(tiny.ann_file)
    save_packed(packed, tmp_path / "a.packed")
    loaded = load_packed(tmp_path / "a.packed")
    assert_same(packed, loaded)
    assert not loaded.boxes.flags.writeable
    assert_same(packed, pickle.loads(pickle.dumps(loaded)))
    assert_same(packed, pickle.loads(pickle.dumps(packed)))
    assert len(pickle.dumps(loaded)) < 500  # a worker maps the file, it receives no copy


def test_file_without_annotations_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "info.json"
    path.write_text(json.dumps({key: tiny_annotations()[key] for key in ("images", "categories")}))
    packed = pack_coco_json(path)
    save_packed(packed, tmp_path / "b.packed")
    assert_same(packed, load_packed(tmp_path / "b.packed"))
    assert packed.boxes.shape == (0, 4)


def test_cache_lies_beside_the_json_and_is_used(tiny: TinyCoco) -> None:
    first = open_packed(tiny.ann_file, pack_coco_json)
    assert first.path.parent == tiny.ann_file.parent

    def must_not_be_called(path: Path) -> PackedAnnotations:
        raise AssertionError("parsed a second time")

    assert_same(first, open_packed(tiny.ann_file, must_not_be_called))


def test_a_changed_json_is_parsed_again(tiny: TinyCoco) -> None:
    before = open_packed(tiny.ann_file, pack_coco_json)
    tiny.data["annotations"][2]["bbox"][0] = 6.0
    tiny.ann_file.write_text(json.dumps(tiny.data))
    after = open_packed(tiny.ann_file, pack_coco_json)
    assert after.path != before.path
    assert sorted((after.boxes != before.boxes).sum(axis=1).tolist())[-2:] == [0, 1]


@pytest.fixture
def read_only(tiny: TinyCoco) -> Iterator[TinyCoco]:
    tiny.ann_file.parent.chmod(0o555)
    yield tiny
    tiny.ann_file.parent.chmod(0o755)


def test_cache_goes_to_the_user_folder_otherwise(read_only: TinyCoco, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed = open_packed(read_only.ann_file, pack_coco_json)
    assert packed.path.parent == tmp_path / "cache" / "maskrcnn_benchmark"
    assert not list(read_only.ann_file.parent.glob("*.packed"))


def test_without_any_cache_the_arrays_stay_in_memory(read_only: TinyCoco, tmp_path: Path, monkeypatch, caplog) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    packed = open_packed(read_only.ann_file, pack_coco_json)
    assert packed.path is None
    assert_same(packed, pack_coco_json(read_only.ann_file))
    assert "No cache" in caplog.text


def _open_and_report(ann_file: Path, log: Path) -> None:
    def pack(path: Path) -> PackedAnnotations:
        with open(log, "a") as file:
            file.write("packed\n")
        return pack_coco_json(path)

    open_packed(ann_file, pack)


def test_of_several_processes_one_packs(tiny: TinyCoco, tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_open_and_report, args=(tiny.ann_file, log)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "packed\n"
    assert not list(tiny.ann_file.parent.glob("*.packed.*"))


def broken(change) -> dict:
    data = tiny_annotations()
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"][0].update(category_id=5), r"annotation 1000 has category_id 5, .*7, 3, 900"),
        (lambda d: d["annotations"][0].pop("bbox"), r"annotation 1000 must have a bbox of 4 numbers"),
        (lambda d: d["annotations"][0].pop("image_id"), r"key 'image_id' is missing"),
        (lambda d: d["annotations"][2]["segmentation"][0].append(1.0), r"annotation 1002 .* 7 numbers"),
        (lambda d: d["annotations"][0]["segmentation"].update(size=[8, 9]), r"annotation 1000 .* RLE of size \[8, 9\]"),
        (lambda d: d["annotations"][0]["segmentation"]["counts"].append(3), r"annotation 1000 .* add up to 4803"),
        (lambda d: d["images"].append(dict(d["images"][0])), r"image id 42 is listed more than once"),
        (lambda d: d["images"][0].pop("height"), r"image 42 must have height, width and file_name"),
        (lambda d: d["categories"].append({"id": "x"}), r"category ids must be integers, got 'x'"),
        (lambda d: d.pop("categories"), r"no 'categories'"),
        (lambda d: d.pop("images"), r"no 'images'"),
    ],
)
def test_faulty_entries_are_named(tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "faulty.json"
    path.write_text(json.dumps(broken(change)))
    with pytest.raises(ValueError, match=message) as error:
        pack_coco_json(path)
    assert str(path) in str(error.value)


def test_broken_json_says_at_which_byte(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes('{"images": ["éé"], oops}'.encode())
    with pytest.raises(ValueError, match=r"broken.json is not valid JSON at byte 21 of 26 \(line 1, column 20\)"):
        pack_coco_json(path)
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"not valid JSON at byte 12 of 12"):
        pack_coco_json(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"must hold a JSON object, got list"):
        pack_coco_json(path)
    with pytest.raises(FileNotFoundError, match=r"absent.json does not exist"):
        pack_coco_json(tmp_path / "absent.json")


def test_annotations_of_unlisted_images_are_left_out(tmp_path: Path, caplog) -> None:
    path = tmp_path / "subset.json"
    path.write_text(json.dumps(broken(lambda d: d["images"].pop(0))))
    packed = pack_coco_json(path)
    assert len(packed.labels) == 6
    assert "2 annotations belong to images that are not listed" in caplog.text
