"""The four changed pictures of CALD, each with where the boxes of the original then are.

Pictures are uint8 [H, W, 3]; boxes float64 [R, 4], edges x1, y1, x2, y2 in pixels. Every view has its picture's size,
so that all are prepared for the network alike. What a view leaves empty is black.
Source: Yu et al. (2022), section 3.2, and its authors' program for the sizes; YMIR's executors have the same.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from maskrcnn_benchmark.data.keyed import keyed_uniform

MAX_CUTS, TRIES = 2, 50
CUT_SIDE = (0.05, 0.2)  # of the picture's side
CUT_SHARE = (0.1, 0.4)  # of the box that a cut covers most
ANGLE = 5.0  # degrees, counter-clockwise
SCALE = 0.8


class View(NamedTuple):
    """A changed picture, and the boxes in it."""

    image: np.ndarray
    boxes: np.ndarray


def make_views(image: np.ndarray, boxes: np.ndarray, *, key: int) -> list[View]:
    """Mirrored, cut out, turned and reduced; what is random depends on ``key`` alone."""
    return [flipped(image, boxes), cut_out(image, boxes, key=key), turned(image, boxes), reduced(image, boxes)]


def flipped(image: np.ndarray, boxes: np.ndarray) -> View:
    """Mirrored left to right."""
    width = image.shape[1]
    mirrored = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    return View(np.ascontiguousarray(image[:, ::-1]), mirrored)


def cut_out(image: np.ndarray, boxes: np.ndarray, *, key: int) -> View:
    """Up to two black rectangles, each hiding 10 to 40 % of the box of which it hides most; the boxes stay.

    Of 50 random rectangles the first two that fit are taken; there may be none.
    """
    height, width = image.shape[:2]
    draws = keyed_uniform(key, count=4 * TRIES).reshape(TRIES, 4)
    low, high = CUT_SIDE
    sides = (low + (high - low) * draws[:, :2]) * (width, height)
    corner = draws[:, 2:] * ((width, height) - sides)
    cuts = np.concatenate([corner, corner + sides], axis=1).astype(np.int64)  # whole pixels
    share = covered_shares(cuts, boxes).max(axis=1)
    image = image.copy()
    for x1, y1, x2, y2 in cuts[(share >= CUT_SHARE[0]) & (share <= CUT_SHARE[1])][:MAX_CUTS]:
        image[y1:y2, x1:x2] = 0
    return View(image, boxes)


def covered_shares(cuts: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The share of each box that each of T rectangles [T, 4] covers: [T, R]."""
    low = np.maximum(cuts[:, None, :2], boxes[None, :, :2])
    high = np.minimum(cuts[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 1e-6, None), axis=1)
    return shared / areas


def turned(image: np.ndarray, boxes: np.ndarray, *, angle: float = ANGLE) -> View:
    """Turned about its middle, and scaled so that all of it stays in view; a box is the hull of its turned corners."""
    height, width = image.shape[:2]
    radians = np.deg2rad(angle)
    cosine, sine = np.cos(radians), np.sin(radians)
    turn = np.array([[cosine, sine], [-sine, cosine]])  # y points down
    around = np.abs(turn) @ (width, height)  # the width and height that hold the turned picture
    matrix = np.diag((width, height) / around) @ turn
    shift = np.array([width, height]) / 2 - matrix @ (width / 2, height / 2)
    # OpenCV has the origin in the middle of the first pixel, boxes have it at its corner.
    pixel_shift = shift + matrix @ (0.5, 0.5) - 0.5
    affine = np.column_stack([matrix, pixel_shift])
    picture = cv2.warpAffine(image, affine, (width, height), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] @ matrix.T + shift  # [R, 4, 2]
    return View(picture, np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1))


def reduced(image: np.ndarray, boxes: np.ndarray, *, scale: float = SCALE) -> View:
    """Smaller, in the top left corner of a black picture of the old size."""
    height, width = image.shape[:2]
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    picture = np.zeros_like(image)
    picture[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return View(picture, boxes * (np.array(size) / (width, height))[[0, 1, 0, 1]])
