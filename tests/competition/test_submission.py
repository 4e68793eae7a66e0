"""The submission: what is in it, in which order, and that it is as large as it may be and not a byte larger."""

from __future__ import annotations

import json

import numpy as np
import pytest

from maskrcnn_benchmark.apps.competition.check_submission import find_faults
from maskrcnn_benchmark.apps.competition.submission import (
    CUT,
    KEYS,
    WHOLE,
    Boxes,
    encode_boxes,
    find_threshold,
    write_submission,
)
from maskrcnn_benchmark.apps.competition.test_images import TestImages, find_file, submission_keys
from maskrcnn_benchmark.evaluation.columns import Detections


def detections(scores, *, categories=None, boxes=None):
    count = len(scores)
    return Detections(
        np.zeros(count, np.int64),
        np.array(categories if categories is not None else [1] * count, dtype=np.int64),
        np.array(scores, dtype=np.float64),
        boxes=np.array(boxes if boxes is not None else [[1.0, 2.0, 3.0, 4.0]] * count, dtype=np.float64),
    )


def random_boxes(seed, *, num_images=40, levels=300):
    """Boxes of many images with scores that often are the same."""
    generator = np.random.default_rng(seed)
    found = {}
    for place in range(num_images):
        count = int(generator.integers(0, 60))
        found[place] = detections(
            generator.integers(1, levels, count) / levels,
            categories=generator.integers(1, 15, count),
            boxes=generator.uniform(0, 900, (count, 4)),
        )
    return found


def read(folder, name):
    return json.loads((folder / name).read_bytes())


def test_objects_are_as_the_organisers_want_them(tmp_path):
    found = {1: detections([0.91342], categories=[6], boxes=[[118.44, 60.04, 95.151, 71.65001]]), 0: detections([])}
    written = write_submission(tmp_path, Boxes.join(found), [7, 412], max_bytes=10**6)
    text = '[{"image_id":412,"category_id":6,"bbox":[118.4,60.0,95.2,71.7],"score":0.9134,"segmentation":[]}]'
    assert (tmp_path / WHOLE).read_text() == (tmp_path / CUT).read_text() == text  # no image without detections
    assert (written.boxes, written.bytes, written.threshold) == (1, len(text), 0.9134)


def test_order_is_by_image_then_score_then_category_whatever_came_first():
    parts = {
        3: detections(
            [0.5, 0.9, 0.5, 0.5], categories=[4, 9, 2, 4], boxes=[[9, 0, 1, 1], [0] * 4, [0] * 4, [5, 0, 1, 1]]
        ),
        0: detections([0.1, 0.2]),
    }
    boxes = Boxes.join(parts)
    rows = list(zip(boxes.places, -boxes.scores, boxes.categories, boxes.boxes[:, 0], strict=True))
    assert rows == sorted(rows)
    assert [row[3] for row in rows[2:]] == [0, 0, 5, 9]
    again = Boxes.join(dict(reversed(parts.items())))
    assert encode_boxes(again, range(9)) == encode_boxes(boxes, range(9))


def test_an_image_has_at_most_fifty_boxes_its_best():
    boxes = Boxes.join({0: detections(np.linspace(0.01, 1, 80)), 1: detections([0.3])})
    assert np.bincount(boxes.places).tolist() == [50, 1]
    assert boxes.scores[49] == pytest.approx(0.3859, abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_the_limit_is_met_and_one_more_level_would_break_it(tmp_path, seed):
    boxes = Boxes.join(random_boxes(seed))
    ids = list(range(100, 140))
    whole = write_submission(tmp_path, boxes, ids, max_bytes=10**9)
    generator = np.random.default_rng(seed)
    for limit in generator.integers(200, whole.bytes, 8).tolist():
        written = write_submission(tmp_path, boxes, ids, max_bytes=limit)
        size = (tmp_path / CUT).stat().st_size
        assert size == written.cut_bytes <= limit
        kept = read(tmp_path, CUT)
        everything = read(tmp_path, WHOLE)
        if written.threshold is None:
            best = max(row["score"] for row in everything)
            more = [row for row in everything if row["score"] == best]
            assert kept == []
        else:
            assert kept == [row for row in everything if row["score"] >= written.threshold]
            lower = max((row["score"] for row in everything if row["score"] < written.threshold), default=None)
            if lower is None:
                continue
            more = [row for row in everything if row["score"] >= lower]
        assert len(json.dumps(more, separators=(",", ":"))) > limit


def test_a_limit_met_to_the_byte(tmp_path):
    boxes = Boxes.join(random_boxes(1))
    ids = list(range(40))
    size = write_submission(tmp_path, boxes, ids, max_bytes=30_000).cut_bytes
    assert write_submission(tmp_path, boxes, ids, max_bytes=size).cut_bytes == size
    assert write_submission(tmp_path, boxes, ids, max_bytes=size - 1).cut_bytes < size


def test_nothing_detected_is_an_empty_list(tmp_path):
    written = write_submission(tmp_path, Boxes.join({}), [1], max_bytes=100)
    assert read(tmp_path, WHOLE) == read(tmp_path, CUT) == []
    assert written.threshold is None
    assert find_threshold(np.zeros(0), np.zeros(0, dtype=np.int64), 100) is None


def test_keys_follow_the_sample(tmp_path, caplog):
    assert submission_keys(tmp_path) == KEYS
    (tmp_path / "test").mkdir()
    sample = tmp_path / "test" / "sample_submission.json"  # an older layout
    sample.write_text(json.dumps([{"id": 1, "score": 0.5, "bbox": [], "category_id": 1, "image_id": 3, "colour": 1}]))
    keys = submission_keys(tmp_path)
    assert keys == ("id", "score", "bbox", "category_id", "image_id", "colour")
    assert "colour" in caplog.text
    (row,) = encode_boxes(Boxes.join({0: detections([0.5])}), ["a"], keys=keys)
    assert json.loads(row) == {
        "id": 1,
        "score": 0.5,
        "bbox": [1, 2, 3, 4],
        "category_id": 1,
        "image_id": "a",
        "colour": None,
    }
    for text in ("[", "{}", "[]", "[3]"):
        sample.write_text(text)
        assert submission_keys(tmp_path) == KEYS


def write_information(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Test_Images_Information.json").write_text(json.dumps({"images": images}), encoding="utf-8")


@pytest.mark.parametrize("place", ["", "test"])
def test_ids_come_from_the_information_file_in_either_place(tmp_path, place):
    rows = [
        {"id": 30, "file_name": "b.png"},
        {"id": 4, "file_name": "folder/서울.png"},
        {"id": "x", "file_name": "a.png"},
    ]
    write_information(tmp_path / place, rows)
    listed = TestImages.read(tmp_path)
    assert (listed.ids, listed.names) == ([4, 30, "x"], ["folder/서울.png", "b.png", "a.png"])
    assert listed.places() == {"서울.png": 0, "b.png": 1, "a.png": 2}
    assert find_file(tmp_path, "Test_Images_Information.json") == listed.path


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "lists no images"),
        ([{"id": 1}], "must have id and file_name"),
        ([{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "lists the id 1 2 times"),
        ([{"id": 1, "file_name": "가.png"}, {"id": 2, "file_name": "가.png"}], "lists the file_name"),
        ([{"id": 1.5, "file_name": "a"}], "an id must be a number or a word"),
    ],
)
def test_a_faulty_information_file_is_told_of(tmp_path, images, message):
    write_information(tmp_path, images)
    with pytest.raises(ValueError, match=message):
        TestImages.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="it gives the images their ids"):
        TestImages.read(tmp_path / "elsewhere")


def sound():
    return {"image_id": 1, "category_id": 14, "bbox": [0.0, 1.5, 3.2, 4.0], "score": 0.5, "segmentation": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"image_id": 9}, "image_id that no image has"),
        ({"category_id": 0}, "category_id that is none of 1 to 14"),
        ({"category_id": 15}, "category_id that is none of 1 to 14"),
        ({"bbox": [1, 2, 3]}, "no bbox"),
        ({"bbox": [1, 2, -3, 4]}, "no bbox"),
        ({"bbox": [1.25, 2, 3, 4]}, "more than one decimal"),
        ({"score": 1.5}, "no score"),
        ({"score": 0.12345}, "no score"),
        ({"more": 1}, "not the keys"),
    ],
)
def test_the_check_finds_what_is_wrong(tmp_path, change, message):
    write_information(tmp_path, [{"id": 1, "file_name": "a.png"}])
    path = tmp_path / "s.json"
    path.write_text(json.dumps([{**sound(), **change}]))
    faults = find_faults(path, TestImages.read(tmp_path), KEYS, max_bytes=10_000)
    assert len(faults) == (message is not None)
    assert message is None or message in faults[0]


def test_the_check_counts_bytes_and_boxes(tmp_path):
    write_information(tmp_path, [{"id": 1, "file_name": "a.png"}])
    path, listed = tmp_path / "s.json", TestImages.read(tmp_path)
    path.write_text(json.dumps([sound()] * 51))
    faults = find_faults(path, listed, KEYS, max_bytes=path.stat().st_size - 1)
    assert ["bytes" in faults[0], "51 boxes" in faults[1]] == [True, True]
    path.write_text("{}")
    assert "not a list" in find_faults(path, listed, KEYS)[0]
    path.write_text("[{")
    assert "cannot be read" in find_faults(path, listed, KEYS)[0]
