"""Prediction on pictures in programs; `apps.coco_demo` has the published `COCODemo`.

Letters: R detections, H W the picture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.augmentation import make_box_augmentation
from maskrcnn_benchmark.apps.categories import Category, default_categories, load_categories
from maskrcnn_benchmark.apps.drawing import DrawnKeypoints, distinct_colours, draw_detections
from maskrcnn_benchmark.apps.predict_coco import coco_annotations, labels_and_scores, masks_of
from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.checkpoint.files import read_weights
from maskrcnn_benchmark.checkpoint.history import newest_checkpoint
from maskrcnn_benchmark.config import CfgNode as ConfigNode
from maskrcnn_benchmark.config.check_heads import check_masks_for_pasting
from maskrcnn_benchmark.config.classes import class_count, only_proposes
from maskrcnn_benchmark.config.defaults import _C as defaults
from maskrcnn_benchmark.data.transforms.build import ImagePreparer
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.ops import paste_masks
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.utils.plain_yaml import parse_yaml

CONFIG_FILE = "config.yml"
_KEYPOINT_THRESHOLD = 2.0  # logit above which a keypoint is drawn, as in the published demo


class Predictor:
    """Detections of one picture at a time.

    Args:
        model: a network in the form of `build_detection_model`; it is put into evaluation mode.
        prepare: BGR uint8 [H, W, 3] to (network input [3, h, w], (h, w)).
        categories: of the labels 1..K.
        size_divisible: network inputs are padded to a multiple of this; 0 pads nothing.
        confidence_threshold: detections with a lower score are left out.
        mask_threshold: a pixel belongs to a mask when its probability is above; negative: heat maps 0..255.
        augmentation: detects in place of the model, in a list of pictures as they are; see `BoxAugmentation`.
        precision: number format and layout of the network's input; None: float32 in NCHW.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        prepare: ImagePreparer,
        categories: Sequence[Category],
        size_divisible: int = 0,
        confidence_threshold: float = 0.5,
        mask_threshold: float = 0.5,
        augmentation: Callable[[list[np.ndarray]], list[BoxList]] | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.model = model.eval()
        self.prepare = prepare
        self.categories = list(categories)
        self.size_divisible = size_divisible
        self.confidence_threshold = confidence_threshold
        self.mask_threshold = mask_threshold
        self.augmentation = augmentation
        self.device = next(model.parameters()).device
        self.precision = precision or Precision(self.device.type)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, *, weights: str | None = None, categories: Sequence[Category] | None = None, **kwargs: Any
    ) -> Predictor:
        """Build the model that a config describes.

        Args:
            cfg: MODEL, INPUT, DTYPE, NHWC, TEST.BBOX_AUG and DATALOADER.SIZE_DIVISIBILITY are read.
            weights: file of the weights; None: MODEL.WEIGHT.
            categories: of the labels; None: DATASETS.CLASSES, else COCO's for 81 classes, else
                numbers.
            kwargs: the thresholds of the constructor.

        Raises:
            ValueError: the device is not there, the config makes proposals only or pastes masks already, or the weights
                do not fit.
        """
        if only_proposes(cfg):
            raise ValueError("MODEL.RPN_ONLY is True: this model makes proposals, not detections that can be drawn")
        check_masks_for_pasting(cfg)
        if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE} but no CUDA device is available; set it to cpu")
        device = torch.device(cfg.MODEL.DEVICE)
        precision = Precision.from_config(cfg, device)
        model = precision.place_model(build_detection_model(cfg), device)
        DetectronCheckpointer(cfg, model).load_weights(cfg.MODEL.WEIGHT if weights is None else weights, strict=True)
        return cls(
            model,
            prepare=ImagePreparer.from_config(cfg),
            categories=categories or default_categories(class_count(cfg), cfg.DATASETS.CLASSES),
            size_divisible=cfg.DATALOADER.SIZE_DIVISIBILITY,
            augmentation=make_box_augmentation(cfg, model, lambda images: precision.place_images(images, device)),
            precision=precision,
            **kwargs,
        )

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        config_file: str | None = None,
        options: Sequence[str] = (),
        device: str | None = None,
        **kwargs: Any,
    ) -> Predictor:
        """Load a trained model; its config comes from the checkpoint or from config.yml beside it.

        Args:
            path: a .pth file, or a run's folder, whose newest checkpoint is taken.
            config_file: takes the place of the config that was saved.
            options: KEY VALUE pairs merged last.
            device: "cpu" or "cuda"; None: CUDA when available.
            kwargs: the thresholds of the constructor.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: the file is damaged, or no config was saved with it and none is given.
        """
        path = find_checkpoint(path)
        cfg = config_of(path, config_file)
        cfg.merge_from_list(list(options))
        cfg.MODEL.DEVICE = device or ("cuda" if torch.cuda.is_available() else "cpu")
        categories = load_categories(Path(path).parent, class_count(cfg), cfg.DATASETS.CLASSES)
        return cls.from_config(cfg, weights=path, categories=categories, **kwargs)

    def __call__(self, image: np.ndarray) -> BoxList:
        """Detect on one picture.

        Args:
            image: uint8 [H, W, 3] BGR.

        Returns:
            Boxes in the picture's pixels, best first, with `scores` [R], `labels` [R] and, from a model with a mask
            head, `mask` bool [R, 1, H, W] (uint8 heat maps for a negative mask threshold), from one with a keypoint
            head, `keypoints`, on the CPU.
        """
        return self.detect([image])[0]

    def detect(self, images: Sequence[np.ndarray]) -> list[BoxList]:
        """As a call, for several pictures of any sizes at once."""
        found = self.infer(images)
        return [self._finish(prediction, image.shape[:2]) for prediction, image in zip(found, images, strict=True)]

    @torch.inference_mode()
    def infer(self, images: Sequence[np.ndarray]) -> list[BoxList]:
        """What the network itself gives: all detections of each picture, in the pixels of its input, on the CPU.

        Args:
            images: uint8 [H, W, 3] BGR each.

        Returns:
            Boxes with `scores` [R], `labels` [R] and, from a mask head, `mask` [R, 1, M, M] of probabilities.
        """
        if self.augmentation is not None:
            found = self.augmentation(list(images))
        else:
            batch = to_image_list([self.prepare(image)[0] for image in images], self.size_divisible)
            with self.precision.autocast():
                found = self.model(self.precision.place_images(batch, self.device))
        return [prediction.to(torch.device("cpu")) for prediction in found]

    def _finish(self, prediction: BoxList, size: tuple[int, int]) -> BoxList:
        """Sure detections, best first, in the pixels of a picture of (height, width) size."""
        height, width = size
        prediction = prediction[prediction.get_field("scores") >= self.confidence_threshold]
        prediction = prediction[prediction.get_field("scores").argsort(descending=True, stable=True)]
        resized = prediction.resize((width, height)).convert("xyxy")
        if prediction.has_field("mask"):
            probabilities = prediction.get_field("mask")[:, 0].float()
            masks = paste_masks(probabilities, resized.bbox, image_size=(height, width), threshold=self.mask_threshold)
            resized.add_field("mask", masks[:, None])
        return resized

    def draw(self, image: np.ndarray, prediction: BoxList, *, scale: int = 1) -> np.ndarray:
        """The picture, enlarged `scale` times, with the detections of `__call__` drawn on it."""
        return draw_detections(
            image,
            prediction.bbox.numpy(),
            [f"{self.name_of(label)} {score:.2f}" for label, score in labels_and_scores(prediction)],
            masks=masks_of(prediction),
            colours=distinct_colours(len(prediction)),
            keypoints=drawn_keypoints(prediction),
            scale=scale,
        )

    def name_of(self, label: int) -> str:
        """The name of a label, 1 to K."""
        return self.categories[label - 1].name

    def coco_annotations(self, prediction: BoxList, *, image_id: int, first_id: int = 1) -> list[dict]:
        """The detections of `__call__` as COCO annotations, see `apps.predict_coco.coco_annotations`."""
        return coco_annotations(prediction, self.categories, image_id=image_id, first_id=first_id)


def find_checkpoint(path: str | os.PathLike[str]) -> str:
    """The path itself if it is a file; the newest checkpoint if it is a run's folder.

    Raises:
        FileNotFoundError: there is none.
    """
    if Path(path).is_file():
        return str(path)
    newest = newest_checkpoint(str(path))
    if not newest:
        kind = "has no file last_checkpoint" if Path(path).is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {kind}; give a .pth file or the output folder of a training run")
    return newest


def config_of(checkpoint: str, config_file: str | None) -> ConfigNode:
    """The defaults with the given file, or the config saved in or beside the checkpoint, merged in."""
    cfg = defaults.clone()
    beside = Path(checkpoint).with_name(CONFIG_FILE)
    if config_file is not None:
        cfg.merge_from_file(config_file)
    elif text := read_weights(checkpoint).get("config"):
        # This machine's place of the catalogue counts, not that of the machine that trained.
        saved = _saved_config(text, checkpoint)
        cfg.merge_from_other_cfg({key: value for key, value in saved.items() if key != "PATHS_CATALOG"})
    elif beside.is_file():
        cfg.merge_from_file(beside)
    else:
        raise ValueError(
            f"no config was saved in {checkpoint} or beside it as {CONFIG_FILE}; name it with --config-file"
        )
    return cfg


def drawn_keypoints(prediction: BoxList) -> DrawnKeypoints | None:
    """What is drawn of a prediction's keypoints: those that are sure enough, with lines between those of a person."""
    if not prediction.has_field("keypoints"):
        return None
    keypoints = prediction.get_field("keypoints")
    return DrawnKeypoints(
        points=keypoints.keypoints[..., :2].numpy(),
        shown=(keypoints.get_field("logits") > _KEYPOINT_THRESHOLD).numpy(),
        connections=PersonKeypoints.CONNECTIONS if isinstance(keypoints, PersonKeypoints) else (),
    )


def _saved_config(text: object, checkpoint: str) -> dict[str, Any]:
    """The config in a checkpoint, as plain values."""
    source = f"the config saved in {checkpoint}"
    saved = parse_yaml(text, source) if isinstance(text, str) else None
    if not isinstance(saved, dict):
        raise ValueError(f"{source} is none; name one with --config-file")
    return saved
