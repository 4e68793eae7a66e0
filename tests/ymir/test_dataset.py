"""Data sets in the platform's formats, compared with the examples that its own exporter wrote."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from maskrcnn_benchmark.ymir.annotations import labels_of, read_ark, read_voc
from maskrcnn_benchmark.ymir.coco_annotations import CocoAnnotations
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.dataset import annotation_format, make_training_data
from maskrcnn_benchmark.ymir.images import read_batches
from maskrcnn_benchmark.ymir.index import read_candidates, read_index
from maskrcnn_benchmark.ymir.protocol import Environment, InputPaths, OutputPaths, Protocol
from maskrcnn_benchmark.ymir.settings import JobSettings

NAMES = ["forklift", "pallet"]
LABELS = labels_of(NAMES)
ARK = "0, 10, 5, 29, 16, -1.0, 0.0\n1, 40, 20, 48, 28, 0.75, 0.0\n"
VOC = """<annotation><filename>/in/assets/a7/5c.jpg</filename><size><width>64</width><height>48</height>
<depth>3</depth></size><object><name>forklift</name><pose>unknown</pose><truncated>unknown</truncated>
<occluded>0</occluded><bndbox><xmin>10</xmin><ymin>5</ymin><xmax>29</xmax><ymax>16</ymax><rotate_angle>0</rotate_angle>
</bndbox><difficult>0</difficult></object></annotation>"""
BOX = (10.0, 5.0, 20.0, 12.0)
POLYGON = [10, 5, 30, 5, 30, 17, 10, 17]


def coco_content(**annotation):
    own = {"id": 1, "image_id": 1, "category_id": 0, "iscrowd": 0, "bbox": [10, 5, 20, 12], "area": 240,
           "segmentation": [POLYGON], **annotation}  # fmt: skip
    return {
        "images": [{"id": 1, "file_name": "5c.jpg", "width": 64, "height": 48}],
        # As the platform writes them: from 0, in any order.
        "categories": [{"id": 1, "name": "forklift"}, {"id": 0, "name": "pallet"}],
        "annotations": [own],
    }


@pytest.fixture
def data(tmp_path):
    return Data(tmp_path)


class Data:
    """A folder /in with two images, and what is read of it."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("assets", "annotations"):
            (folder / name).mkdir()
        for name in ("5c.jpg", "5d"):  # the second one has no ending
            encoded = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1]
            (folder / "assets" / name).write_bytes(encoded.tobytes())

    def path(self, *parts):
        return self.folder.joinpath(*parts)

    def write(self, name, text):
        path = self.path("annotations", name)
        path.write_text(text)
        return str(path)

    def index(self, file, *pairs):
        lines = [f"{self.path('assets', image)}\t{self.path('annotations', other)}" for image, other in pairs]
        self.path(file).write_text("\n\n".join(lines))  # blank lines are skipped, and the last one does not end

    def read(self, export_format, **values):
        root = str(self.folder)
        paths = InputPaths(
            root_dir=root,
            annotations_dir=f"{root}/annotations",
            training_index_file=f"{root}/train.tsv",
            val_index_file=f"{root}/val.tsv",
        )
        environment = Environment("t", True, False, False, Protocol(True, True), paths, OutputPaths())
        settings = JobSettings({"class_names": NAMES, "export_format": export_format, **values})
        made = make_training_data(environment, settings, f"{root}/made", lambda part: None)
        return made, *(json.loads(self.path("made", f"{name}.json").read_text()) for name in ("train", "val"))


def test_text_has_inclusive_corners(data):
    first, second = read_ark(data.write("a.txt", ARK), LABELS)
    assert (first.label, first.box, first.segmentation) == (1, BOX, None)
    assert (second.label, second.box) == (2, (40.0, 20.0, 9.0, 9.0))


def test_text_of_the_first_generation_has_fewer_columns(data):
    assert read_ark(data.write("a.txt", "0,10,5,29,16\n\n"), LABELS)[0].box == BOX
    assert read_ark(data.write("b.txt", ""), LABELS) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [("2, 1, 1, 2, 2", "from 0 to 1"), ("0, 1, 1, 2", "four corners"), ("0, a, 1, 2, 2", "number"), ("x,1,1,2,2", "x")],
)
def test_text_that_is_faulty_names_its_line(data, line, words):
    path = data.write("a.txt", f"0, 1, 1, 2, 2\n{line}\n")
    with pytest.raises(JobError, match=words) as caught:
        read_ark(path, LABELS)
    assert f"{path} line 2" in str(caught.value)
    assert caught.value.code == ReturnCode.ANNOTATION


def test_xml_counts_from_0_with_inclusive_corners(data):
    (found,) = read_voc(data.write("a.xml", VOC), LABELS)
    assert (found.label, found.box) == (1, BOX)
    assert read_voc(data.write("b.xml", VOC.replace("<width>64</width>", "").replace("forklift", "Pallet ")), LABELS)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<name>forklift", "<name>truck", "object 1: class 'truck'"),
        ("<xmin>10", "<xmin>ten", "xmin"),
        ("</annotation>", "", "XML"),
    ],
)
def test_xml_that_is_faulty_names_its_object(data, old, new, words):
    path = data.write("a.xml", VOC.replace(old, new))
    with pytest.raises(JobError, match=words) as caught:
        read_voc(path, LABELS)
    assert path in str(caught.value)
    assert caught.value.code == ReturnCode.ANNOTATION


def of_coco(data, content, name="5c.jpg"):
    return CocoAnnotations(data.write("coco.json", json.dumps(content)), LABELS).of(name, height=48, width=64)


def test_categories_of_coco_are_known_by_name(data):
    (found,) = of_coco(data, coco_content())
    assert (found.label, found.box, found.segmentation, found.area) == (2, BOX, [POLYGON], 240)
    # The image in the index may have lost its ending.
    assert of_coco(data, coco_content(), name="5c") == [found]


def test_masks_of_coco_as_compressed_text(data):
    rle = {"size": [10, 12], "counts": "P146000000000l0"}
    content = coco_content(segmentation=rle)
    found = CocoAnnotations(data.write("coco.json", json.dumps(content)), LABELS).of("5c.jpg", height=10, width=12)
    assert found[0].segmentation == rle


@pytest.mark.parametrize("segmentation", [{}, [], None])
def test_a_box_without_an_outline(data, segmentation):
    assert of_coco(data, coco_content(segmentation=segmentation))[0].segmentation is None


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"category_id": 7}, "category 7"),
        ({"bbox": [1, 2, 3]}, "4 numbers"),
        ({"segmentation": [[1, 2, 3]]}, "even"),
        ({"segmentation": {"size": [5, 5], "counts": "P1"}}, "RLE of size"),
        ({"segmentation": {"size": [48, 64], "counts": "\x01"}}, "RLE"),
    ],
)
def test_coco_that_is_faulty_names_its_annotation(data, annotation, words):
    with pytest.raises(JobError, match=words) as caught:
        of_coco(data, coco_content(**annotation))
    assert "annotation 1" in str(caught.value)
    assert caught.value.code == ReturnCode.ANNOTATION


def test_an_image_that_coco_does_not_know(data):
    with pytest.raises(JobError, match=r"no image 5e\.jpg"):
        of_coco(data, coco_content(), name="5e.jpg")


def test_what_is_read_becomes_coco(data):
    data.write("a.txt", ARK)
    data.write("b.txt", "1, 5, 5, 4, 9\n")  # of no width
    data.index("train.tsv", ("5c.jpg", "a.txt"), ("5d", "b.txt"))
    data.index("val.tsv", ("5d", "a.txt"))
    made, train, val = data.read("ark:raw")
    assert not made.has_masks
    assert [(image["height"], image["width"]) for image in train["images"]] == [(48, 64)] * 2
    assert "/" + val["images"][0]["file_name"] == str(data.path("assets", "5d"))
    assert train["categories"] == [{"id": 1, "name": "forklift"}, {"id": 2, "name": "pallet"}]
    assert [(a["image_id"], a["category_id"], tuple(a["bbox"])) for a in train["annotations"]] == [
        (1, 1, BOX),
        (1, 2, (40.0, 20.0, 9.0, 9.0)),
    ]
    # A box stands for the outline that it does not have, up to the far edge of its last pixels.
    assert train["annotations"][0]["segmentation"] == [POLYGON]


def test_one_coco_file_for_both_parts(data):
    content = coco_content()
    content["images"].append({"id": 5, "file_name": "5d", "width": 64, "height": 48})
    data.write("coco-annotations.json", json.dumps(content))
    data.index("train.tsv", ("5c.jpg", "nothing.txt"))
    data.index("val.tsv", ("5d", "nothing.txt"))
    made, train, val = data.read("seg-coco:raw")
    assert made.has_masks
    assert (len(train["annotations"]), len(val["annotations"])) == (1, 0)
    assert train["annotations"][0]["category_id"] == 2


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ("det-voc:raw", "a.txt", "voc"),
        ("", "a.xml", "voc"),
        ("", "a.json", "coco"),
        ("", "a", "voc"),
        ("ark", "a", "ark"),
    ],
)
def test_formats(data, given, name, expected):
    data.index("train.tsv", ("5c.jpg", name))
    entries = read_index(str(data.path("train.tsv")), "training")
    environment = Environment("t", True, False, False, Protocol(True, True), InputPaths(), OutputPaths())
    assert annotation_format(JobSettings({"export_format": given}), environment, entries) == expected


@pytest.mark.parametrize("given", ["none:raw", "yolo:raw", "ark:lmdb"])
def test_formats_that_cannot_be_trained_on(given):
    with pytest.raises(JobError, match="export_format") as caught:
        annotation_format(JobSettings({"export_format": given}), None, [])
    assert caught.value.code == ReturnCode.CONFIG


def test_data_that_is_missing(data):
    data.write("a.txt", ARK)
    data.index("train.tsv", ("5c.jpg", "a.txt"))
    data.index("val.tsv", ("5e.jpg", "a.txt"))
    for change, words in (
        (lambda: None, r"val\.tsv line 1: image .*5e\.jpg does not exist"),
        (lambda: data.index("val.tsv", ("5d", "b.txt")), r"b\.txt does not exist"),
        (lambda: data.path("val.tsv").write_text("\n"), "lists no image"),
        (lambda: data.path("val.tsv").unlink(), "cannot be read"),
    ):
        change()
        with pytest.raises(JobError, match=words) as caught:
            data.read("ark:raw")
        assert caught.value.code == ReturnCode.DATASET


def test_training_without_any_object(data):
    data.write("a.txt", "")
    for file in ("train.tsv", "val.tsv"):
        data.index(file, ("5c.jpg", "a.txt"))
    with pytest.raises(JobError, match="has an object of forklift, pallet") as caught:
        data.read("ark:raw")
    assert caught.value.code == ReturnCode.DATASET


def test_an_image_that_is_none(data):
    data.write("a.txt", ARK)
    data.path("assets", "5d").write_bytes(b"GIF89")
    for file in ("train.tsv", "val.tsv"):
        data.index(file, ("5d", "a.txt"))
    with pytest.raises(JobError, match="5d") as caught:
        data.read("ark:raw")
    assert caught.value.code == ReturnCode.ANNOTATION


def test_candidates_stand_there_once(data):
    names = [str(data.path("assets", name)) for name in ("5d", "5c.jpg", "5d")]
    data.path("candidates.tsv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(names).encode())
    assert read_candidates(str(data.path("candidates.tsv"))) == names[:2]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order(data, workers):
    paths = [str(data.path("assets", name)) for name in ("5d", "5c.jpg")] * 4
    batches = list(read_batches(paths, 3, workers))
    assert [len(names) for names, _ in batches] == [3, 3, 2]
    assert [name for names, _ in batches for name in names] == paths
    assert batches[0][1][0].shape == (48, 64, 3)
    with pytest.raises(JobError, match="nowhere"):
        list(read_batches([*paths, "nowhere"], 3, workers))
