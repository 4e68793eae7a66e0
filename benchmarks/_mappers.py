"""Other programs' ways from a file to a training sample, for comparisons: the real package where it is installed.

Otherwise a stand-in does the same work with the same libraries. Every mapper takes a record: ``file_name``, ``height``,
``width`` and ``annotations`` with ``bbox`` (x, y, width, height), ``category_id``, ``iscrowd`` and ``segmentation``.
"""

from __future__ import annotations

import copy
import importlib.util
import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from maskrcnn_benchmark.data.transforms.transforms import resized_size

Record = dict[str, Any]
SHORT, LONG = 800, 1333
MEAN = (102.9801, 115.9465, 122.7717)


def _rounded_size(height: int, width: int) -> tuple[int, int]:
    """As detectron2 and torchvision have it: the longer side is rounded."""
    scale = min(SHORT / min(height, width), LONG / max(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def detectron2_stand_in(record: Record) -> dict[str, Any]:
    """The steps of detectron2's DatasetMapper in training: uint8 [3, H, W] BGR, boxes, classes and polygons."""
    record = copy.deepcopy(record)
    with open(record["file_name"], "rb") as file:
        picture = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    image = np.asarray(picture)[:, :, ::-1]
    height, width = _rounded_size(*image.shape[:2])
    scale_x, scale_y = width / image.shape[1], height / image.shape[0]
    image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    flipped = random.random() < 0.5
    if flipped:
        image = np.flip(image, axis=1)
    boxes, polygons = [], []
    objects = [each for each in record.pop("annotations") if not each.get("iscrowd", 0)]
    for each in objects:
        x, y, w, h = each["bbox"]
        corners = np.array([[x, y], [x + w, y], [x, y + h], [x + w, y + h]])
        rings = [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in each["segmentation"]]
        for points in (corners, *rings):
            points[:, 0] *= scale_x
            points[:, 1] *= scale_y
            if flipped:
                points[:, 0] = width - points[:, 0]
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).clip(min=0)
        boxes.append(np.minimum(box, [width, height, width, height]))
        polygons.append([ring.reshape(-1) for ring in rings])
    record["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
    gt_boxes = torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32)
    kept = (gt_boxes[:, 2:] > gt_boxes[:, :2] + 1e-5).all(dim=1)
    record["gt_boxes"] = gt_boxes[kept]
    record["gt_classes"] = torch.tensor([each["category_id"] for each in objects], dtype=torch.int64)[kept]
    record["gt_masks"] = [rings for rings, keep in zip(polygons, kept.tolist(), strict=True) if keep]
    return record


def torchvision_v1_stand_in(record: Record) -> tuple[torch.Tensor, list[Any]]:
    """The chain of the original and of NVIDIA's: PIL's resize and flip, to_tensor, BGR times 255, mean subtracted."""
    with open(record["file_name"], "rb") as file:
        picture = Image.open(file).convert("RGB")
    height, width = resized_size((picture.height, picture.width), min_size=SHORT, max_size=LONG)
    scale = torch.tensor([width / picture.width, height / picture.height])
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    flipped = random.random() < 0.5
    if flipped:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = torch.from_numpy(np.array(picture, copy=True)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    image = image[[2, 1, 0]] * 255
    mean, std = torch.as_tensor(MEAN)[:, None, None], torch.ones(3)[:, None, None]
    image = image.clone().sub_(mean).div_(std)
    return image, _polygon_objects(record, scale, width, flipped)


def _polygon_objects(record: Record, scale: torch.Tensor, width: int, flipped: bool) -> list[Any]:
    """Boxes, labels and one object a polygon, each step for each of them, as lists of tensors do it."""
    objects = [each for each in record["annotations"] if not each.get("iscrowd", 0)]
    boxes = torch.as_tensor([each["bbox"] for each in objects]).reshape(-1, 4)
    boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - 1], dim=1) * scale.repeat(2)
    rings = [[torch.as_tensor(ring, dtype=torch.float32) for ring in each["segmentation"]] for each in objects]
    rings = [[(ring.reshape(-1, 2) * scale).reshape(-1) for ring in each] for each in rings]
    if flipped:
        boxes = torch.stack([width - 1 - boxes[:, 2], boxes[:, 1], width - 1 - boxes[:, 0], boxes[:, 3]], dim=1)
        for each in rings:
            for ring in each:
                ring[0::2] = width - 1 - ring[0::2]
    return [boxes, torch.tensor([each["category_id"] for each in objects]), rings]


def torchvision_v2_stand_in(record: Record) -> tuple[torch.Tensor, list[Any]]:
    """The v2 transforms of torchvision on a uint8 tensor: its resize and flip are these functions of PyTorch."""
    with open(record["file_name"], "rb") as file:
        pixels = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)
    height, width = _rounded_size(*pixels.shape[1:])
    scale = torch.tensor([width / pixels.shape[2], height / pixels.shape[1]])
    pixels = F.interpolate(pixels[None], (height, width), mode="bilinear", antialias=True)[0]
    flipped = random.random() < 0.5
    if flipped:
        pixels = pixels.flip(-1)
    image = pixels.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return image.sub_(mean).div_(std), _polygon_objects(record, scale, width, flipped)


def opencv_bytes(record: Record) -> np.ndarray:
    """OpenCV alone, no objects: decode, resize, pad to a multiple of 32."""
    image = cv2.imread(record["file_name"])
    height, width = resized_size(image.shape[:2], min_size=SHORT, max_size=LONG)
    batch = np.zeros((1, -(-height // 32) * 32, -(-width // 32) * 32, 3), dtype=np.uint8)
    batch[0, :height, :width] = cv2.resize(image, (width, height))
    return batch


def opencv_input(record: Record) -> np.ndarray:
    """OpenCV and NumPy alone, no objects: decode, resize, normalise, lay out and pad to a multiple of 32."""
    image = cv2.imread(record["file_name"])
    height, width = resized_size(image.shape[:2], min_size=SHORT, max_size=LONG)
    values = cv2.resize(image, (width, height)).astype(np.float32)
    values -= np.float32(MEAN)
    batch = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), dtype=np.float32)
    batch[0, :, :height, :width] = values.transpose(2, 0, 1)
    return batch


def detectron2_mapper() -> tuple[str, Callable[[Record], Any]]:
    """The mapper of detectron2, or its stand-in, with a name that says which."""
    if importlib.util.find_spec("detectron2") is None:
        return "detectron2's mapper (stand-in)", detectron2_stand_in
    from detectron2.config import get_cfg
    from detectron2.data import DatasetMapper
    from detectron2.structures import BoxMode

    cfg = get_cfg()
    cfg.MODEL.MASK_ON, cfg.INPUT.MIN_SIZE_TRAIN = True, (SHORT,)
    mapper = DatasetMapper(cfg, is_train=True)

    def call(record: Record) -> Any:
        annotations = [each | {"bbox_mode": BoxMode.XYWH_ABS} for each in record["annotations"]]
        return mapper(record | {"annotations": annotations})

    return "detectron2's mapper", call


def torchvision_mapper() -> tuple[str, Callable[[Record], Any]]:
    """The decoder and v2 transforms of torchvision where it can be imported, or a stand-in; the name says which."""
    try:
        from torchvision.io import decode_image, read_file
        from torchvision.transforms.v2 import functional

        read_file(__file__)  # its library for images may be missing although its operators are there
    except (ImportError, RuntimeError):
        return "torchvision v2 (stand-in)", torchvision_v2_stand_in

    def call(record: Record) -> Any:
        pixels = decode_image(read_file(record["file_name"]), mode="RGB")
        size = _rounded_size(*pixels.shape[1:])
        scale = torch.tensor([size[1] / pixels.shape[2], size[0] / pixels.shape[1]])
        pixels = functional.resize(pixels, list(size), antialias=True)
        flipped = random.random() < 0.5
        if flipped:
            pixels = functional.horizontal_flip(pixels)
        image = functional.to_dtype(pixels, torch.float32, scale=True)
        image = functional.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        return image, _polygon_objects(record, scale, size[1], flipped)

    return "torchvision v2", call
