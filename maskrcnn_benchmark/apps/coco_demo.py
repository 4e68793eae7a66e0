"""The published face of prediction, as notebooks and the webcam demo use it.

Letters: R detections, H W the picture.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.categories import default_categories, load_categories
from maskrcnn_benchmark.apps.drawing import (
    Colour,
    distinct_colours,
    draw_keypoints,
    draw_label,
    draw_mask,
    line_thickness,
    mask_montage,
)
from maskrcnn_benchmark.apps.predict import Predictor, drawn_keypoints
from maskrcnn_benchmark.apps.predict_coco import labels_and_scores, masks_of
from maskrcnn_benchmark.checkpoint.history import newest_checkpoint
from maskrcnn_benchmark.config.classes import class_count
from maskrcnn_benchmark.structures.bounding_box import BoxList

_HEAT_MAP = -1.0  # threshold that asks for heat maps


class COCODemo:
    """A picture in, the picture with its detections out, and the steps between.

    ``Predictor`` is the shorter way for new programs. The overlays draw on the picture that they are given.

    Args:
        cfg: the config; the newest checkpoint of OUTPUT_DIR is loaded, or else MODEL.WEIGHT.
        confidence_threshold: detections with a lower score are not shown.
        show_mask_heatmaps: show a grid of mask probabilities instead of the picture.
        masks_per_dim: columns and rows of that grid.
        min_image_size: shorter side of the network's input in pixels.
    """

    CATEGORIES = ("__background", *(category.name for category in default_categories(81)))

    def __init__(
        self,
        cfg: CfgNode,
        confidence_threshold: float = 0.7,
        show_mask_heatmaps: bool = False,
        masks_per_dim: int = 2,
        min_image_size: int = 224,
    ) -> None:
        self.cfg = cfg.clone()
        self.cfg.defrost()
        self.cfg.INPUT.MIN_SIZE_TEST = min_image_size
        self.confidence_threshold = confidence_threshold
        self.show_mask_heatmaps = show_mask_heatmaps
        self.masks_per_dim = masks_per_dim
        self.predictor = Predictor.from_config(
            self.cfg,
            weights=newest_checkpoint(self.cfg.OUTPUT_DIR) or self.cfg.MODEL.WEIGHT,
            categories=load_categories(self.cfg.OUTPUT_DIR, class_count(self.cfg), self.cfg.DATASETS.CLASSES),
            confidence_threshold=0.0,
            mask_threshold=_HEAT_MAP if show_mask_heatmaps else 0.5,
        )
        self.model = self.predictor.model
        self.device = self.predictor.device

    def run_on_opencv_image(self, image: np.ndarray) -> np.ndarray:
        """Detections drawn on a copy of a BGR uint8 picture; with ``show_mask_heatmaps`` the grid, of the same size."""
        top = self.select_top_predictions(self.compute_prediction(image))
        if self.show_mask_heatmaps:
            return self.create_mask_montage(image, top)
        return self.predictor.draw(image, top)

    def compute_prediction(self, original_image: np.ndarray) -> BoxList:
        """Every detection in a BGR uint8 picture, best first; ``mask`` is [R, 1, H, W], see ``Predictor.__call__``."""
        return self.predictor(original_image)

    def select_top_predictions(self, predictions: BoxList) -> BoxList:
        """Those above the confidence threshold, best first."""
        sure = predictions[predictions.get_field("scores") > self.confidence_threshold]
        return sure[sure.get_field("scores").argsort(descending=True, stable=True)]

    def compute_colors_for_labels(self, labels: Tensor) -> list[Colour]:
        """One BGR colour a label, the same for the same label."""
        colours = distinct_colours(len(self.predictor.categories) + 1)
        return [colours[label] for label in labels.tolist()]

    def overlay_boxes(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """Draw the boxes."""
        corners = predictions.convert("xyxy").bbox.round().to(torch.int64).tolist()
        for (x1, y1, x2, y2), colour in zip(corners, self._colours(predictions), strict=True):
            cv2.rectangle(image, (x1, y1), (x2, y2), colour, line_thickness(image))
        return image

    def overlay_mask(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """Tint the masks and trace their outlines.

        Raises:
            ValueError: there are none.
        """
        masks = masks_of(predictions)
        if masks is None:
            raise ValueError("overlay_mask needs a model with a mask head (MODEL.MASK_ON True)")
        for mask, colour in zip(masks, self._colours(predictions), strict=True):
            draw_mask(image, mask, colour, thickness=line_thickness(image))
        return image

    def overlay_keypoints(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """Draw the keypoints that are sure enough, and the lines between them.

        Raises:
            ValueError: there are none.
        """
        drawn = drawn_keypoints(predictions)
        if drawn is None:
            raise ValueError("overlay_keypoints needs a model with a keypoint head (MODEL.KEYPOINT_ON True)")
        points = np.round(drawn.points).astype(int)
        for index, colour in enumerate(self._colours(predictions)):
            draw_keypoints(
                image,
                points[index],
                drawn.shown[index],
                colour,
                connections=drawn.connections,
                thickness=line_thickness(image),
            )
        return image

    def overlay_class_names(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """Write the names of the classes and the scores beside the boxes."""
        corners = predictions.convert("xyxy").bbox.round().to(torch.int64).numpy()
        colours = self._colours(predictions)
        for box, (label, score), colour in zip(corners, labels_and_scores(predictions), colours, strict=True):
            draw_label(image, f"{self.predictor.name_of(label)}: {score:.2f}", box, colour)
        return image

    def create_mask_montage(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """A grid of the first ``masks_per_dim`` squared masks, in the size of ``image``.

        Raises:
            ValueError: there are no masks.
        """
        if not predictions.has_field("mask"):
            raise ValueError("create_mask_montage needs a model with a mask head (MODEL.MASK_ON True)")
        masks = predictions.get_field("mask")[:, 0].numpy()
        if masks.dtype == np.bool_:
            masks = masks.astype(np.uint8) * 255
        return mask_montage(masks.reshape(-1, *image.shape[:2]), columns=self.masks_per_dim)

    def _colours(self, predictions: BoxList) -> list[Colour]:
        return self.compute_colors_for_labels(predictions.get_field("labels"))
