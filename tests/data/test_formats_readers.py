"""What labelme's shapes, YOLO's lines and masks in png files mean, and what of them is refused."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from maskrcnn_benchmark.data.datasets import InstancePNGDataset, LabelmeDataset, YOLODataset
from maskrcnn_benchmark.data.datasets.image_size import read_image_size
from maskrcnn_benchmark.data.datasets.instance_png import read_ids
from tests.data.tiny_formats import CLASSES, FORMATS, HEIGHT, WIDTH, masks_of


def labelme_file(folder: Path, shapes: list, size: tuple | None = (HEIGHT, WIDTH), name: str = "a") -> Path:
    """One picture with shapes (label, shape_type, points, group_id)."""
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / f"{name}.png"), np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    content = {
        "imageHeight": size[0] if size else None,
        "imageWidth": size[1] if size else None,
        "shapes": [
            {"label": label, "shape_type": kind, "points": points, "group_id": group, **dict(*more)}
            for label, kind, points, group, *more in shapes
        ],
    }
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_labelme_s_shapes(tmp_path: Path) -> None:
    bitmap = np.zeros((4, 6), dtype=np.uint8)
    bitmap[1:3, 2:5] = 1
    png = base64.b64encode(cv2.imencode(".png", bitmap)[1].tobytes()).decode()
    folder = labelme_file(
        tmp_path / "data",
        [
            ("tri", "polygon", [[2, 2], [12, 2], [2, 12]], None),
            ("disc", "circle", [[30, 24], [40, 24]], None),
            ("pieces", "polygon", [[0, 0], [4, 0], [4, 4], [0, 4]], 7),
            ("pieces", "rectangle", [[20, 30], [10, 20]], 7),
            ("tri", "polygon", [[50, 2], [60, 2], [50, 12]], 7),  # another name: another object
            ("wire", "linestrip", [[10, 40], [50, 40]], None),
            ("dot", "point", [[52, 30]], None),
            ("drawn", "mask", [[40, 10], [45, 13]], None, {"mask": png}),
            ("__ignore__", "polygon", [[0, 0], [9, 0], [9, 9]], None),
        ],
        size=None,
    )
    dataset = LabelmeDataset(folder)
    assert dataset.categories == ("disc", "dot", "drawn", "pieces", "tri", "wire")
    targets = dataset.load_targets(0)
    names = [dataset.categories[label - 1] for label in targets.labels]
    assert names == ["tri", "disc", "pieces", "tri", "wire", "dot", "drawn"]
    masks = dict(zip(["tri", "disc", "pieces", "tri 2", "wire", "dot", "drawn"], masks_of(targets), strict=True))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = (columns - 30) ** 2 + (rows - 24) ** 2 <= 100
    assert (masks["disc"] ^ inside).sum() <= 8  # pixels that the rim cuts in two
    assert masks["pieces"].sum() == 16 + 100
    assert masks["pieces"][25, 15]
    np.testing.assert_array_equal(targets.boxes[2], [0, 0, 19, 29])
    assert 10 <= masks["wire"][:, 30].sum() <= 11, "as wide as labelme draws it"
    assert masks["dot"].sum() == pytest.approx(np.pi * 25, rel=0.1)
    assert masks["drawn"].sum() == 6
    assert masks["drawn"][11:13, 42:45].all()


def test_rectangles_alone_are_boxes(tmp_path: Path) -> None:
    folder = labelme_file(tmp_path / "data", [("a", "rectangle", [[20, 30], [10, 20]], None)])
    with pytest.raises(ValueError, match=r"the objects have boxes only; set MODEL.MASK_ON to False"):
        LabelmeDataset(folder)
    dataset = LabelmeDataset(folder, with_masks=False)
    np.testing.assert_array_equal(dataset.load_targets(0).boxes, [[10, 20, 19, 29]])
    assert "segmentation" not in dataset.coco.anns[1]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            ("a", "spline", [[0, 0], [1, 1]], None),
            r"shape 1 \(a\): shape_type 'spline' is not known; there are rectangle",
        ),
        (("a", "polygon", [[0, 0], [1]], None), r"shape 1 \(a\): its points must be pairs of numbers"),
        (("a", "polygon", [[0, 0], [5, 0], [1e9, 5]], None), r"within a million"),
        (("a", "polygon", [["x", 0], [5, 0], [5, 5]], None), r"pairs of numbers"),
        (("", "polygon", [[0, 0], [5, 0], [5, 5]], None), r"its label must be a name"),
        (("a", "circle", [[0, 0]], None), r"a circle needs a centre"),
        (("a", "mask", [[0, 0], [1, 1]], None, {"mask": "AAAA"}), r"its mask is not a png"),
        (("a", "mask", [[0, 0], [1, 1]], None), r"there is no 'mask'"),
    ],
)
def test_a_faulty_shape_is_named(tmp_path: Path, shape: tuple, message: str) -> None:
    folder = labelme_file(tmp_path / "data", [shape])
    with pytest.raises(ValueError, match=message) as caught:
        LabelmeDataset(folder)
    assert str(folder / "a.json") in str(caught.value)


def test_yolo_s_layouts(tmp_path: Path) -> None:
    entry = FORMATS["yolo"](tmp_path / "data")
    path = Path(entry["data_yaml"])
    expected = [targets.boxes.tolist() for targets in map(YOLODataset(path).load_targets, range(4))]
    content = yaml.safe_load(path.read_text())
    images = sorted(str(each.relative_to(path.parent)) for each in path.parent.rglob("*.jpg"))
    (path.parent / "list.txt").write_text("\n".join(images))
    for change in (
        {"names": list(CLASSES)},
        {"path": "."},
        {"path": None},
        {"train": "../images/train", "path": None},
        {"train": "list.txt"},
        {"train": ["images/train"]},
    ):
        path.write_text(yaml.safe_dump({**content, **change}))
        dataset = YOLODataset(path)
        assert [dataset.load_targets(index).boxes.tolist() for index in range(len(dataset))] == expected, change
    (path.parent / "classes.txt").write_text("bolt\nnut\n")
    folders = {"img_dir": path.parent / "images" / "train", "txt_dir": path.parent / "labels" / "train"}
    dataset = YOLODataset(**folders, classes=path.parent / "classes.txt")
    assert [dataset.load_targets(index).boxes.tolist() for index in range(len(dataset))] == expected


def test_yolo_s_boxes_beside_polygons(tmp_path: Path) -> None:
    entry = FORMATS["yolo"](tmp_path / "data")
    label = tmp_path / "data" / "labels" / "train" / "b.txt"
    label.write_text("0 0.25 0.5 0.25 0.5\n")
    dataset = YOLODataset(entry["data_yaml"])
    targets = dataset.load_targets(1)
    np.testing.assert_array_equal(targets.boxes, [[8, 12, 23, 35]])
    assert masks_of(targets)[0].sum() == 16 * 24


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", r"line 1: class 2 is not one of the 2 classes, 0 to 1"),
        ("0 0.5 0.5 0.1", r"after the class come 4 numbers"),
        ("\n0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", r"line 2: after the class"),
        ("0 12 10 4 4", r"fractions of width and height"),
        ("0 nan 0.5 0.1 0.1", r"fractions of width and height"),
        ("bolt 0.5 0.5 0.1 0.1", r"it must hold numbers"),
    ],
)
def test_a_faulty_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    entry = FORMATS["yolo"](tmp_path / "data")
    label = tmp_path / "data" / "labels" / "train" / "a.txt"
    label.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        YOLODataset(entry["data_yaml"])
    assert str(label) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": {0: "a", 2: "b"}}, r"names must number the classes 0 to 1"),
        ({"names": ["a", "a"]}, r"'a' is listed twice"),
        ({"names": None}, r"has no names"),
        ({"nc": 3}, r"nc is 3, but there are 2 names"),
        ({"train": None}, r"names no split 'train'; it has val"),
        ({"train": "nowhere"}, r"names nowhere, but there is nothing at"),
    ],
)
def test_a_faulty_data_yaml(tmp_path: Path, change: dict, message: str) -> None:
    path = Path(FORMATS["yolo"](tmp_path / "data")["data_yaml"])
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        YOLODataset(path)
    assert str(path) in str(caught.value)


def png_with_table(ids: np.ndarray, table: np.ndarray, depth: int) -> bytes:
    """A png whose pixels are numbers of a table of colours, written by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    height, width = ids.shape
    bits = np.unpackbits(ids[..., None].astype(np.uint8), axis=-1)[..., 8 - depth :].reshape(height, -1)
    rows = np.packbits(bits, axis=1)
    data = b"".join(b"\x00" + row.tobytes() for row in rows)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, 3, 0, 0, 0])
    pieces = [
        (b"IHDR", header),
        (b"PLTE", table.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*piece) for piece in pieces)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_ids_in_a_png_with_a_table_of_colours(tmp_path: Path, depth: int) -> None:
    rng = np.random.default_rng(depth)
    ids = rng.integers(0, 2**depth, (5, 13))
    table = np.zeros((2**depth, 3), dtype=np.uint8)  # all black: only the numbers tell the objects apart
    (tmp_path / "a.png").write_bytes(png_with_table(ids, table, depth))
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), ids)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"b.png is damaged or truncated"):
        read_ids(tmp_path / "b.png")


def test_ids_of_sixteen_bits(tmp_path: Path) -> None:
    ids = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10)
    cv2.imwrite(str(tmp_path / "a.png"), ids)
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), ids)


def test_ids_and_their_classes(tmp_path: Path) -> None:
    entry = FORMATS["instance_png"](tmp_path / "data")
    mapping = Path(entry["mapping_file"])
    mapping.write_text(json.dumps({"1": "nut", "2": None}))
    dataset = InstancePNGDataset(**entry)
    assert dataset.categories == ("nut",)
    assert [len(dataset.load_targets(index)) for index in range(4)] == [1, 1, 0, 1]
    mapping.write_text(json.dumps({"1": "nut"}))
    with pytest.raises(ValueError, match=r"a_mask.png: id 2 has no class in the mapping file"):
        InstancePNGDataset(**entry)
    mapping.write_text(json.dumps({"a": {"1": "nut", "2": "nut"}}))
    with pytest.raises(ValueError, match=r"b.jpg: the mapping file says nothing of b"):
        InstancePNGDataset(**entry)
    del entry["mapping_file"]
    assert InstancePNGDataset(**entry).categories == ("object",)
    with pytest.raises(ValueError, match=r"nothing says which id has which of the 2 classes"):
        InstancePNGDataset(**entry, classes=["bolt", "nut"])


def test_changed_annotations_are_read_anew(tmp_path: Path) -> None:
    folder = labelme_file(tmp_path / "data", [("a", "polygon", [[2, 2], [12, 2], [2, 12]], None)])
    assert len(LabelmeDataset(folder).load_targets(0)) == 1
    labelme_file(folder, [("a", "polygon", [[2, 2], [12, 2], [2, 12]], None)] * 2)
    assert len(LabelmeDataset(folder).load_targets(0)) == 2
    labelme_file(folder, [("b", "polygon", [[2, 2], [12, 2], [2, 12]], None)], name="second")
    assert LabelmeDataset(folder).categories == ("a", "b")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_sizes_from_the_header(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), np.zeros((37, 91, 3), dtype=np.uint8))
    assert read_image_size(path) == (37, 91)
    if suffix == ".jpg":
        progressive = cv2.imencode(".jpg", np.zeros((37, 91, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
        path.write_bytes(progressive.tobytes())
        assert read_image_size(path) == (37, 91)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=path.name):
        read_image_size(path)
