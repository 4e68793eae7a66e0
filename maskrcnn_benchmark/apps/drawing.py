"""Detections drawn on a picture: free functions on BGR uint8 arrays [H, W, 3].

Letters: R detections, H W the picture, P keypoints of a detection.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[int, int, int]  # BGR

_GOLDEN_RATIO = 0.618033988749895
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MASK_ALPHA = 0.4
_LABEL_PADDING = 2


@dataclass(frozen=True)
class DrawnKeypoints:
    """What is drawn of R detections' keypoints.

    Attributes:
        points: [R, P, 2] x, y in pixels.
        shown: bool [R, P]; the others are left out.
        connections: pairs of keypoints between which a line is drawn where both are shown.
    """

    points: np.ndarray
    shown: np.ndarray
    connections: Sequence[tuple[int, int]] = ()


def distinct_colours(count: int) -> list[Colour]:
    """`count` bright colours; neighbours in the list differ most (steps of the golden ratio around the hue circle)."""
    colours = []
    for index in range(count):
        # Lightness alternates too, for the eye's sake when hues come round again.
        saturation, value = ((0.95, 1.0), (0.65, 0.95), (0.95, 0.75))[index % 3]
        red, green, blue = colorsys.hsv_to_rgb((0.02 + index * _GOLDEN_RATIO) % 1.0, saturation, value)
        colours.append((int(255 * blue), int(255 * green), int(255 * red)))
    return colours


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    texts: Sequence[str],
    *,
    masks: np.ndarray | None = None,
    colours: Sequence[Colour] | None = None,
    keypoints: DrawnKeypoints | None = None,
    scale: int = 1,
) -> np.ndarray:
    """A new picture with masks, boxes, keypoints and texts over the image.

    Args:
        image: uint8 [H, W, 3] BGR; it is left as it is.
        boxes: [R, 4] xyxy in pixels, both corners inside the box.
        texts: one label a detection.
        masks: bool [R, H, W], or None.
        colours: one a detection; None: `distinct_colours`.
        keypoints: of the detections, or None.
        scale: the picture is enlarged by this factor first, so that labels of small images stay readable.

    Returns:
        uint8 [H * scale, W * scale, 3].

    Raises:
        ValueError: the counts differ.
    """
    counts = {len(boxes), len(texts), *([] if masks is None else [len(masks)]), *([len(colours)] if colours else [])}
    if len(counts) != 1:
        raise ValueError(f"boxes, texts, masks and colours must have one length, got {sorted(counts)}")
    colours = colours or distinct_colours(len(boxes))
    canvas = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else image.copy()
    thickness = line_thickness(canvas)
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    # Large objects first: small ones, and what belongs to them, stay on top.
    order = np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable")
    if masks is not None:
        for index in order:
            draw_mask(canvas, enlarge_mask(masks[index], scale), colours[index], thickness=thickness)
    scaled = np.stack([boxes[:, 0], boxes[:, 1], boxes[:, 2] + 1, boxes[:, 3] + 1], axis=1) * scale
    corners = np.round(scaled).astype(int) - [0, 0, 1, 1]
    for index in order:
        x1, y1, x2, y2 = corners[index].tolist()
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colours[index], thickness)
    if keypoints is not None:
        places = np.round((keypoints.points + 0.5) * scale - 0.5).astype(int)
        for index in order:
            shown = keypoints.shown[index]
            draw_keypoints(
                canvas, places[index], shown, colours[index], connections=keypoints.connections, thickness=thickness
            )
    taken: list[tuple[int, int, int, int]] = []
    for index in order:
        taken.append(draw_label(canvas, texts[index], corners[index], colours[index], avoid=taken))
    return canvas


def draw_mask(canvas: np.ndarray, mask: np.ndarray, colour: Colour, *, thickness: int = 1) -> None:
    """Tint the mask (bool [H, W]) on `canvas` in place and trace its outline, holes included."""
    tint = np.array(colour, dtype=np.float32)
    canvas[mask] = np.round(canvas[mask] * (1 - _MASK_ALPHA) + tint * _MASK_ALPHA).astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, colour, thickness)


def draw_keypoints(
    canvas: np.ndarray,
    points: np.ndarray,
    shown: np.ndarray,
    colour: Colour,
    *,
    connections: Sequence[tuple[int, int]] = (),
    thickness: int = 1,
) -> None:
    """Draw the points [P, 2] (int, x, y) that are shown, bool [P], and the lines between them, on `canvas` in place."""
    for first, second in connections:
        if shown[first] and shown[second]:
            cv2.line(canvas, points[first].tolist(), points[second].tolist(), colour, thickness, cv2.LINE_AA)
    for point in points[shown].tolist():
        cv2.circle(canvas, point, 2 * thickness, colour, cv2.FILLED)
        cv2.circle(canvas, point, 2 * thickness, text_colour(colour), 1)  # seen on a mask of the same colour


def draw_label(
    canvas: np.ndarray,
    text: str,
    box: np.ndarray,
    colour: Colour,
    *,
    avoid: Sequence[tuple[int, int, int, int]] = (),
) -> tuple[int, int, int, int]:
    """Write `text` on a filled plate near the box, inside the picture and, if there is room, off the plates in `avoid`.

    Args:
        canvas: the picture, drawn on in place.
        text: one line; characters that the font lacks become "?".
        box: [4] xyxy in pixels.
        colour: the plate's; the letters are black or white, whichever is easier to read.
        avoid: plates (x, y, width, height) drawn before.

    Returns:
        The plate (x, y, width, height).
    """
    text = text.encode("ascii", "replace").decode("ascii")
    height, width = canvas.shape[:2]
    font_scale = min(max(0.4, min(height, width) / 1400), 1.2)
    (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, font_scale, 1)
    plate_width, plate_height = text_width + 2 * _LABEL_PADDING, text_height + baseline + 2 * _LABEL_PADDING
    x1, y1, x2, y2 = (int(v) for v in box)
    # Above, below, inside at the top, inside at the bottom, above to the right.
    places = [(x1, y1 - plate_height), (x1, y2 + 1), (x1, y1), (x1, y2 - plate_height), (x2, y1 - plate_height)]
    plates = [
        (
            min(max(x, 0), max(width - plate_width, 0)),
            min(max(y, 0), max(height - plate_height, 0)),
            plate_width,
            plate_height,
        )
        for x, y in places
    ]
    plate = min(plates, key=lambda p: (sum(_overlap(p, other) for other in avoid), plates.index(p)))
    x, y = plate[:2]
    cv2.rectangle(canvas, (x, y), (x + plate_width - 1, y + plate_height - 1), colour, cv2.FILLED)
    origin = (x + _LABEL_PADDING, y + _LABEL_PADDING + text_height)
    cv2.putText(canvas, text, origin, _FONT, font_scale, text_colour(colour), 1, cv2.LINE_AA)
    return plate


def text_colour(background: Colour) -> Colour:
    """Black on light plates, white on dark ones (by luma)."""
    blue, green, red = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def line_thickness(image: np.ndarray) -> int:
    """Lines of one pixel, and one more for every 400 pixels of the shorter side."""
    return 1 + min(image.shape[:2]) // 400


def readable_scale(image: np.ndarray, *, side: int = 600) -> int:
    """The enlargement, 1 to 4, that brings the shorter side of a small image near `side` pixels."""
    return int(min(max(round(side / min(image.shape[:2])), 1), 4))


def mask_montage(masks: np.ndarray, *, columns: int) -> np.ndarray:
    """Heat maps in a grid.

    Args:
        masks: uint8 [R, H, W]; at most `columns`^2 of them are shown, missing ones are black.
        columns: tiles in a row and in a column.

    Returns:
        uint8 [H, W, 3] of the size of one mask, tiles in a colour map.
    """
    height, width = masks.shape[1:]
    canvas = np.zeros((height, width), dtype=np.uint8)
    tile_height, tile_width = height // columns, width // columns
    for index, mask in enumerate(masks[: columns * columns]):
        y, x = (index // columns) * tile_height, (index % columns) * tile_width
        tile = cv2.resize(mask, (tile_width, tile_height), interpolation=cv2.INTER_AREA)
        canvas[y : y + tile_height, x : x + tile_width] = tile
    return cv2.applyColorMap(canvas, cv2.COLORMAP_JET)


def enlarge_mask(mask: np.ndarray, scale: int) -> np.ndarray:
    """Mask bool [H, W] to [H * scale, W * scale] with smooth outlines."""
    if scale == 1:
        return mask
    grey = cv2.resize(mask.astype(np.float32), None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return grey > 0.5


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    """Common area of two rectangles (x, y, width, height) in pixels."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)
