"""Detections on a camera's pictures, in a window: what demo/webcam.py does."""

from __future__ import annotations

import argparse
import contextlib
import logging
import time

import cv2
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.coco_demo import COCODemo
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.options.webcam import make_parser as make_parser
from maskrcnn_benchmark.apps.start import build_config
from maskrcnn_benchmark.apps.video import VideoReader
from maskrcnn_benchmark.utils.allocator import keep_pages
from maskrcnn_benchmark.utils.logger import setup_logger

WINDOW = "Mask R-CNN (Esc ends)"
ESCAPE = 27

logger = logging.getLogger("maskrcnn_benchmark.predict")


@user_errors()
def main(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Run the program until Esc is pressed.

    Args:
        args: parsed options of ``make_parser``.
        cfg: the config tree with its defaults; stays as it is.
    """
    setup_logger("maskrcnn_benchmark", "", 0)
    cfg = build_on_this_machine(args, cfg)
    open_window()
    keep_pages()
    with contextlib.closing(VideoReader(args.camera)) as reader:
        demo = COCODemo(
            cfg,
            confidence_threshold=args.confidence_threshold,
            show_mask_heatmaps=args.show_mask_heatmaps,
            masks_per_dim=args.masks_per_dim,
            min_image_size=args.min_image_size,
        )
        for frame in reader:
            begin = time.perf_counter()
            cv2.imshow(WINDOW, demo.run_on_opencv_image(frame.image))
            logger.info("%.3f s a picture", time.perf_counter() - begin)
            if cv2.waitKey(1) == ESCAPE:
                break
    cv2.destroyAllWindows()


def build_on_this_machine(args: argparse.Namespace, cfg: CfgNode) -> CfgNode:
    """The config, on the CPU where there is no CUDA device."""
    cfg = build_config(args, cfg)
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def open_window() -> None:
    """Open the window before anything slow is done.

    Raises:
        ValueError: this OpenCV has no windows, or there is no screen.
    """
    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
    except cv2.error as error:
        raise ValueError(
            "OpenCV cannot open a window here: install opencv-python in place of opencv-python-headless and run on a "
            "machine with a screen, or record to a file: python tools/predict.py --camera 0 --weights FILE"
        ) from error
