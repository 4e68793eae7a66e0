"""A JSON file read in pieces gives what it gives as a whole, or says that it cannot be read so."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from maskrcnn_benchmark.data.datasets import coco_json
from maskrcnn_benchmark.data.datasets.coco_json import pack_coco_json
from maskrcnn_benchmark.data.datasets.json_stream import UnsplittableError, read_members
from tests.data.test_packed import assert_same
from tests.data.tiny_coco import TinyCoco, tiny_annotations

# What looks like the end of an item, inside strings and inside items.
TRAPS = ['}, {"', "]", '"}],[{', "\\", '\\"}, {', "é}, {", "\u2028", "😀", ""]


def random_value(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(9 if depth else 6)
    if kind == 0:
        return rng.choice(TRAPS)
    if kind < 6:
        return [1, -2.5, 1e300, True, None, "a", 12345678901][rng.randrange(7)]
    if kind == 6:
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(TRAPS) + str(n): random_value(rng, depth - 1) for n in range(rng.randrange(4))}


def random_document(rng: random.Random) -> bytes:
    document = {}
    for number in range(rng.randrange(1, 5)):
        key = f"{rng.choice(TRAPS)}{number}"
        if rng.random() < 0.7:
            count = rng.choice([0, 1, 3, 30])
            document[key] = [{"n": n, "v": random_value(rng, 3)} for n in range(count)]
            if rng.random() < 0.2:
                document[key].append(random_value(rng, 2))
        else:
            document[key] = random_value(rng, 2)
    layout = rng.choice([{}, {"indent": 1}, {"separators": (",", ":")}])
    return json.dumps(document, ensure_ascii=rng.random() < 0.5, **layout).encode()


def read(path: Path, piece: int) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for key, value in read_members(path, piece=piece):
        if isinstance(value, list):
            whole.setdefault(key, []).extend(value)
        else:
            whole[key] = value
    return whole


@pytest.mark.parametrize("seed", range(8))
def test_pieces_make_the_whole(tmp_path: Path, seed: int) -> None:
    rng, path, split = random.Random(seed), tmp_path / "a.json", 0
    for _ in range(40):
        text = random_document(rng)
        path.write_bytes(text)
        for piece in (24, 100, 1000):
            try:
                assert read(path, piece) == orjson.loads(text)
                split += 1
            except UnsplittableError:
                # a list that ends with something else than an object, which nothing in COCO's format does
                assert not all(
                    isinstance(v[-1], dict) for v in orjson.loads(text).values() if isinstance(v, list) and v
                )
    assert split > 90


@pytest.mark.parametrize("seed", range(4))
def test_what_is_broken_is_never_read(tmp_path: Path, seed: int) -> None:
    rng, path, refused = random.Random(seed), tmp_path / "a.json", 0
    for _ in range(150):
        text = bytearray(random_document(rng))
        if rng.random() < 0.5:
            del text[rng.randrange(len(text)) :]
        else:
            text[rng.randrange(len(text))] = rng.randrange(256)
        path.write_bytes(text)
        try:
            expected = orjson.loads(bytes(text))
        except orjson.JSONDecodeError:
            refused += 1
            with pytest.raises(UnsplittableError):
                read(path, rng.choice([24, 100, 1000]))
            continue
        if isinstance(expected, dict) and len(set(expected)) == text.count(b'": ') + text.count(b'":'):
            assert read(path, 100) == expected
    assert refused > 80


def test_a_large_file_is_packed_in_pieces(tiny: TinyCoco, tmp_path: Path, monkeypatch) -> None:
    expected = pack_coco_json(tiny.ann_file)
    monkeypatch.setattr(coco_json, "_LARGE", 0)
    monkeypatch.setattr(coco_json, "parse_json", None)  # not called
    for order in (["images", "annotations", "categories"], ["annotations", "categories", "images"]):
        path = tmp_path / "ordered.json"
        path.write_text(json.dumps({"info": {"a": [1]}, **{key: tiny.data[key] for key in order}, "licenses": []}))
        for piece in (200, 700, 1 << 20):
            monkeypatch.setattr(coco_json, "read_members", lambda p, piece=piece: read_members(p, piece=piece))
            assert_same(pack_coco_json(path), expected)


def test_a_large_broken_file_is_named_with_its_place(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(coco_json, "_LARGE", 0)
    path = tmp_path / "broken.json"
    text = json.dumps(tiny_annotations())
    at = text.index('"categories"')
    path.write_text(text[:at] + "oops" + text[at:])
    with pytest.raises(ValueError, match=rf"broken.json is not valid JSON at byte {at} of {len(text) + 4}"):
        pack_coco_json(path)


def test_annotations_of_all_pieces_come_in_the_order_of_their_images(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(coco_json, "_LARGE", 0)
    rng = np.random.default_rng(0)
    data = {
        "annotations": [
            {
                "id": n,
                "image_id": int(rng.integers(0, 50)),
                "category_id": 1,
                "bbox": [n, 0, 5, 5],
                "segmentation": [[n + 0.25, 0, n, 1, 3, 3], [n, 1.5, n, 2, 4, 4, 5, 5]][: int(rng.integers(0, 3))],
            }
            for n in range(400)
        ],
        "images": [{"id": n, "height": 9, "width": 9, "file_name": f"{n}"} for n in rng.permutation(50).tolist()],
        "categories": [{"id": 1, "name": "a"}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    monkeypatch.setattr(coco_json, "read_members", lambda p: read_members(p, piece=2000))
    packed = pack_coco_json(path)
    expected = sorted(data["annotations"], key=lambda item: item["image_id"])
    assert packed.boxes[:, 0].tolist() == [item["id"] for item in expected]
    for row, item in enumerate(expected):
        coords, rings, _ = packed.take_polygons(np.array([row]))
        own = [coords[a:b].ravel().tolist() for a, b in itertools.pairwise(rings)]
        assert own == item["segmentation"]
