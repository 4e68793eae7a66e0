"""Sound files of every kind, from which the mutations start."""

from __future__ import annotations

import collections
import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from maskrcnn_benchmark.config import cfg as defaults
from tests.checkpoint.foreign import Skeleton, tensors, write_python2
from tests.data.tiny_cityscapes import write_tiny_cityscapes
from tests.data.tiny_formats import FORMATS
from tests.data.tiny_voc import write_tiny_voc
from tests.fuzz.uses import SHAPES

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parents[1] / "configs"
# Each is the smallest published one that switches its own part of the network on.
CONFIG_FILES = (
    "demo/mask_rcnn_R_18_FPN_shapes.yaml",
    "e2e_faster_rcnn_R_50_C4_1x.yaml",
    "retinanet/retinanet_R-50-FPN_1x.yaml",
    "e2e_keypoint_rcnn_R_50_FPN_1x.yaml",
)
# The annotation file of a format that is changed, below its folder.
ANNOTATION_FILES = {
    "coco": "annotations.json",
    "voc": "xml/a.xml",
    "labelme": "a.json",
    "yolo": "labels/train/a.txt",
    "yolo_yaml": "data.yaml",
    "instance_png": "masks/a_mask.png",
    "mapping": "classes.json",
    "voc_folder": "Annotations/000001.xml",
    "cityscapes": "*_instanceIds.png",
    "cityscapes_poly": "*_polygons.json",
    "packed": "*.packed",
}


def config_texts() -> dict[str, str]:
    """Published configs, and one that uses what YAML offers."""
    texts = {name: (CONFIGS / name).read_text() for name in CONFIG_FILES if (CONFIGS / name).exists()}
    texts["anchors.yaml"] = "MODEL: &m {MASK_ON: False, RPN: {USE_FPN: False}}\nSOLVER:\n  BASE_LR: !!float 1e-3\n"
    return texts


def config_trees() -> dict[str, dict[str, Any]]:
    """The same as trees."""
    return {name: yaml.safe_load(text) for name, text in config_texts().items()}


def default_tree() -> dict[str, Any]:
    """All keys with their defaults."""
    return yaml.safe_load(defaults.dump())


def write_weights(folder: Path) -> list[Path]:
    """A checkpoint of our own, published ones in both formats of torch.save, and pickles of Caffe2 and detectron2."""
    state = tensors(SHAPES)
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.ones(3)
    optimizer.step()
    own = {"model": Skeleton(SHAPES).state_dict(), "optimizer": optimizer.state_dict(), "iteration": 7}
    own |= {"scheduler": {"last_epoch": 7}, "config": "MODEL: {}\n", "format_version": 1, "world_size": 1}
    torch.save(own, folder / "own.pth.own")
    published = {"model": collections.OrderedDict((f"module.{name}", value) for name, value in state.items())}
    torch.save({**published, "iteration": 90000}, folder / "published.pth")
    torch.save(published, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    blobs = {"conv1_w": state["backbone.body.stem.conv1.weight"].numpy(), "res_conv1_bn_s": np.ones(4, np.float32)}
    blobs |= {"res_conv1_bn_b": np.zeros(4, np.float32), "conv_rpn_fpn2_w": state["rpn.head.conv.weight"].numpy()}
    write_python2(folder / "caffe2.pkl", {"blobs": blobs, "cfg": "A: 1\n"}, 2)
    write_python2(folder / "caffe2_text.pkl", {"blobs": blobs}, 0)
    model = {"backbone.bottom_up.stem.conv1.weight": state["backbone.body.stem.conv1.weight"].numpy()}
    (folder / "detectron2.pkl").write_bytes(pickle.dumps({"model": model, "__author__": "somebody"}, 4))
    return sorted(path for path in folder.iterdir() if path.is_file())


def write_annotations(kind: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """A data set of one format: its entry for DATASETS.CUSTOM, and the file that is changed."""
    base = {"yolo_yaml": "yolo", "mapping": "instance_png", "packed": "coco"}.get(kind, kind)
    if base in FORMATS:
        entry = FORMATS[base](folder)
    elif base == "voc_folder":
        write_tiny_voc(folder)
        entry = {"data_dir": str(folder), "split": "train"}
    else:
        write_tiny_cityscapes(folder)
        entry = {"img_dir": f"{folder}/leftImg8bit", "ann_dir": f"{folder}/gtFine", "split": "train"}
        entry["mode"] = "poly" if kind == "cityscapes_poly" else "mask"
    if kind == "packed":
        from tests.fuzz.uses import use_annotations

        use_annotations(base, entry)
    pattern = ANNOTATION_FILES[kind]
    file = folder / pattern if "*" not in pattern else sorted(folder.rglob(pattern))[0]
    if not file.exists():
        file = sorted(folder.rglob(f"*{file.suffix}"))[0]
    return entry, file


def write_images(folder: Path) -> list[Path]:
    """Pictures of every kind that OpenCV writes, and some that it does not: CMYK, animated, turned by EXIF."""
    coarse = np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (40, 32), interpolation=cv2.INTER_CUBIC)
    grey = picture[:, :, 0]
    wide = (grey.astype(np.uint16) << 8) | 7
    for name, pixels, flags in (
        ("baseline.jpg", picture, []),
        ("progressive.jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        ("restarts.jpg", picture, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        ("grey.jpg", grey, []),
        ("colour.png", picture, []),
        ("grey.png", grey, []),
        ("wide.png", wide, []),
        ("alpha.png", np.dstack([picture, grey]), []),
        ("bits.png", (grey > 99).astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1]),
        ("picture.bmp", picture, []),
        ("picture.webp", picture, []),
        ("picture.tiff", picture, []),
    ):
        assert cv2.imwrite(str(folder / name), pixels, flags)
    for path in (HERE / "seeds").glob("*.*"):
        shutil.copy(path, folder / path.name)
    return sorted(path for path in folder.iterdir() if path.is_file())
