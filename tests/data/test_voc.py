"""Pascal VOC's format: objects, difficult ones, what faulty files lead to, and a step of training from it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.datasets import COCODataset, ConcatDataset, PascalVOCDataset
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.structures.bounding_box import BoxList
from tests.data.tiny_coco import write_tiny_coco
from tests.data.tiny_voc import OBJECTS, SIZES, voc_xml, write_tiny_voc

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# The 20 classes of the challenge, in alphabetical order.
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_voc(tmp_path / "VOC2007", ("train", "val", "test"))


def targets(dataset: PascalVOCDataset) -> dict[str, tuple[list, list]]:
    loaded = (dataset.load_targets(index) for index in range(len(dataset)))
    return {i: (each.boxes.tolist(), each.labels.tolist()) for i, each in zip(dataset.ids, loaded, strict=True)}


def test_targets_by_hand(folder: Path) -> None:
    dataset = PascalVOCDataset(folder, "train")
    assert dataset.categories == CLASSES
    assert [dataset.map_class_id_to_class_name(label) for label in (0, 1, 20)] == [
        "__background__",
        "aeroplane",
        "tvmonitor",
    ]
    assert dataset.id_to_img_map == dict(enumerate(SIZES)), "in the order of the split"
    # Counted from 0, clipped to the image; difficult ones and the box of one column are gone.
    assert targets(dataset) == {
        "000007": ([[10, 5, 39, 49], [30, 10, 79, 59]], [12, 15]),
        "000002": ([[5, 5, 49.5, 69]], [7]),
        "2008_000001": ([], []),
        "000009": ([[0, 0, 59, 59], [39, 39, 59, 59]], [20, 17]),
    }
    assert dataset.get_img_info(2) == {
        "id": "2008_000001",
        "height": 50,
        "width": 90,
        "file_name": "2008_000001.jpg",
    }
    assert dataset.aspect_ratios().tolist() == [60 / 80, 80 / 60, 50 / 90, 1.0]


def test_difficult_objects_are_a_choice_of_training_and_kept_for_evaluation(folder: Path) -> None:
    without, with_difficult = PascalVOCDataset(folder, "train"), PascalVOCDataset(folder, "train", use_difficult=True)
    assert targets(with_difficult)["2008_000001"] == ([[4, 4, 19, 39]], [5])
    assert targets(with_difficult)["000007"][1] == [12, 15, 12]
    for dataset in (without, with_difficult):
        truth = dataset.get_groundtruth(0)
        assert truth.get_field("difficult").tolist() == [False, False, True]
        assert truth.get_field("labels").tolist() == [12, 15, 12]
        assert truth.bbox.tolist()[2] == [60, 0, 69, 8]
        assert truth.size == (80, 60)


def test_training_leaves_out_images_without_objects(folder: Path) -> None:
    dataset = PascalVOCDataset(folder, "train", remove_images_without_annotations=True)
    assert dataset.ids == ["000007", "000002", "000009"]
    assert dataset.get_groundtruth(2).get_field("labels").tolist() == [20, 8, 17]
    (folder / "ImageSets/Main/empty.txt").write_text("2008_000001\n")
    with pytest.raises(ValueError, match=r"empty.txt: none of its 1 images has an object"):
        PascalVOCDataset(folder, "empty", remove_images_without_annotations=True)


def test_samples_of_both_doors_agree(folder: Path) -> None:
    dataset = pickle.loads(pickle.dumps(PascalVOCDataset(folder, "train")))
    pixels, raw, index = dataset[SampleKey(0, 0)]
    image, boxlist, same_index = dataset[0]
    assert index == same_index == 0
    assert pixels.shape == (60, 80, 3)
    np.testing.assert_array_equal(pixels, image)
    assert isinstance(boxlist, BoxList)
    assert boxlist.bbox.tolist() == raw.boxes.tolist() == [[10, 5, 39, 49], [30, 10, 79, 59]]


def test_the_cache_follows_the_files(folder: Path) -> None:
    PascalVOCDataset(folder, "train")
    assert len(list((folder / "ImageSets/Main").glob("train.*.packed"))) == 1
    xml = folder / "Annotations/000002.xml"
    xml.write_text(voc_xml("000002").replace("car", "horse"))
    assert targets(PascalVOCDataset(folder, "train"))["000002"][1] == [13]
    own = PascalVOCDataset(
        folder, "train", classes=[name.strip() for rows in OBJECTS.values() for name, *_ in rows] + ["horse"]
    )
    assert targets(own)["000002"][1] == [9], "other classes, other labels"


def test_plain_parsing_gives_the_same(folder: Path) -> None:
    dataset = PascalVOCDataset(folder, "train", use_difficult=True)
    for index, image_id in enumerate(dataset.ids):
        root = ElementTree.parse(folder / "Annotations" / f"{image_id}.xml").getroot()
        expected = [
            (item.find("name").text.lower().strip(), *(float(value.text) - 1 for value in item.find("bndbox")))
            for item in root.findall("object")
        ]
        truth = dataset.get_groundtruth(index)
        names = [dataset.map_class_id_to_class_name(label) for label in truth.get_field("labels").tolist()]
        assert [(name, *box) for name, box in zip(names, truth.bbox.tolist(), strict=True)] == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "<name>dog</name>",
            "<name>wolf</name>",
            r"000007.xml: object 1 \(wolf\): name 'wolf' is not among the 20 classes",
        ),
        ("<name>dog</name>", "", r"object 1 \(without a name\): name '' is not among"),
        ("<xmin>11</xmin>", "", r"000007.xml: object 1 \(dog\): there is no bndbox/xmin"),
        ("<ymax>50</ymax>", "<ymax>fifty</ymax>", r"object 1 \(dog\): bndbox/ymax must be a number, got 'fifty'"),
        ("<xmax>40</xmax>", "<xmax>nan</xmax>", r"bndbox/xmax must be a number, got 'nan'"),
        ("<difficult>0</difficult>", "<difficult>yes</difficult>", r"difficult must be a number, got 'yes'"),
        (
            "<height>60</height>",
            "<height>0</height>",
            r"000007.xml: size/height must be an integer of at least 1, got '0'",
        ),
        ("<width>80</width>", "", r"there is no size/width"),
        ("</annotation>", "", r"000007.xml: is not valid XML: no element found"),
        ("<annotation>", "<!DOCTYPE annotation><annotation>", r"000007.xml: it declares a document type"),
        (
            "<annotation>",
            '<!DOCTYPE a [<!ENTITY lol "lol"><!ENTITY more "&lol;&lol;">]><annotation><folder>&more;</folder>',
            r"000007.xml: it declares a document type",
        ),
        (
            "<annotation>",
            '<!DOCTYPE a [<!ENTITY own SYSTEM "file:///etc/hostname">]><annotation><folder>&own;</folder>',
            r"000007.xml: it declares a document type",
        ),
    ],
)
def test_faulty_xml_is_named_with_its_field(folder: Path, old: str, new: str, message: str) -> None:
    text = voc_xml("000007")
    assert old in text
    (folder / "Annotations/000007.xml").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as caught:
        PascalVOCDataset(folder, "train")
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(folder: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"Main/trainval.txt does not exist; the splits there are test, train, val"
    ):
        PascalVOCDataset(folder, "trainval")
    with pytest.raises(FileNotFoundError, match=r"VOC folder .*VOC2012 does not exist"):
        PascalVOCDataset(folder.with_name("VOC2012"), "train")
    (folder / "JPEGImages/000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"JPEGImages/000002.jpg does not exist"):
        PascalVOCDataset(folder, "train").load_image(1)
    (folder / "Annotations/000002.xml").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"Annotations/000002.xml does not exist, but .*train.txt lists its image"
    ):
        PascalVOCDataset(folder, "train")


@pytest.mark.parametrize(
    ("lines", "message"), [("\n \n", "lists no image"), ("000007\n000007\n", "000007 more than once")]
)
def test_faulty_split(folder: Path, lines: str, message: str) -> None:
    (folder / "ImageSets/Main/train.txt").write_text(lines)
    with pytest.raises(ValueError, match=message):
        PascalVOCDataset(folder, "train")


def test_an_image_of_another_size_is_named(folder: Path) -> None:
    (folder / "JPEGImages/000007.jpg").write_bytes((folder / "JPEGImages/000002.jpg").read_bytes())
    with pytest.raises(ValueError, match=r"000007.jpg is 60x80 pixels, but .*Annotations/000007.xml says 80x60"):
        PascalVOCDataset(folder, "train").load_image(0)


@pytest.fixture
def cfg(folder: Path):
    cfg = global_cfg.clone()
    cfg.merge_from_file(str(CONFIGS / "pascal_voc" / "e2e_faster_rcnn_R_50_C4_1x_4_gpu_voc.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0, "SOLVER.MAX_ITER", 2])
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 2, "INPUT.MIN_SIZE_TRAIN", 48, "INPUT.MAX_SIZE_TRAIN", 80])
    cfg.DATASETS.DATA_DIR = str(folder.parent)
    return cfg


def test_the_published_config_reads_it(cfg) -> None:
    loader, iterations_per_epoch = make_data_loader(cfg)
    assert len(loader.dataset) == 6, "train and val, without the image that has difficult objects only"
    assert iterations_per_epoch == 3
    images, batch, indices = next(iter(loader))
    assert images.tensors.shape[0] == len(indices) == 2
    assert batch.polygons is None
    assert int((batch.labels > 0).sum()) == sum(len(loader.dataset.load_targets(index)) for index in indices)
    (test_loader,) = make_data_loader(cfg, is_train=False)
    assert len(test_loader.dataset) == 4
    cfg.MODEL.MASK_ON = True
    with pytest.raises(ValueError, match=r"voc_2007_train has no segmentation to train masks on"):
        make_data_loader(cfg)
    cfg.MODEL.MASK_ON = False
    cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = 81
    with pytest.raises(ValueError, match=r"voc_2007_train lists 20 categories, so the model needs 21 classes"):
        make_data_loader(cfg)


def test_a_custom_entry_with_classes_of_its_own(cfg, folder: Path) -> None:
    entry = {"name": "own", "data_dir": str(folder), "split": "train", "classes": ["person", "car"]}
    cfg.DATASETS.CUSTOM = [entry]
    cfg.DATASETS.TRAIN = ("own",)
    cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = 3
    with pytest.raises(ValueError, match=r"name 'dog' is not among the 2 classes person, car"):
        make_data_loader(cfg)
    entry["classes"] = sorted({name.strip().lower() for rows in OBJECTS.values() for name, *_ in rows})
    cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = len(entry["classes"]) + 1
    assert make_data_loader(cfg)[0].dataset.categories == tuple(entry["classes"])


def test_coco_and_voc_together(folder: Path, tmp_path: Path) -> None:
    tiny = write_tiny_coco(tmp_path / "coco")
    coco = COCODataset(tiny.ann_file, tiny.root, True, with_masks=False)
    with pytest.raises(ValueError, match=r"must list the same categories in the same order.*'kite'.*'aeroplane'"):
        ConcatDataset([coco, PascalVOCDataset(folder, "train")])
    names = [*coco.categories, "dog", "person", "car", "bottle", "tvmonitor", "cat", "sheep"]
    voc = PascalVOCDataset(folder, "train", classes=names)
    tiny.data["categories"] += [{"id": 1000 + n, "name": name} for n, name in enumerate(names[3:])]
    tiny.ann_file.write_text(json.dumps(tiny.data))
    coco = COCODataset(tiny.ann_file, tiny.root, True, with_masks=False)
    both = ConcatDataset([coco, voc])
    assert both.categories == tuple(names)
    assert [both.id_to_img_map[index] for index in (0, len(coco))] == [5, "000007"]
    targets = both[SampleKey(0, len(coco))][1]
    assert [both.categories[label - 1] for label in targets.labels] == ["dog", "person"]


def test_a_step_of_the_published_network(cfg) -> None:
    """The C4 network of the config, in an eighth of its width."""
    from maskrcnn_benchmark.modeling.detector import build_detection_model

    cfg.merge_from_list(["MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32])
    cfg.merge_from_list(["MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.BACKBONE.OUT_CHANNELS", 128])
    cfg.merge_from_list(["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.RPN.STRADDLE_THRESH", -1])
    cfg.merge_from_list(["MODEL.RPN.PRE_NMS_TOP_N_TRAIN", 200, "MODEL.RPN.POST_NMS_TOP_N_TRAIN", 50])
    torch.manual_seed(0)
    model = build_detection_model(cfg).train()
    images, targets, _ = next(iter(make_data_loader(cfg)[0]))
    losses = model(images, targets)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
