"""Pictures of a data set on one sheet, with boxes, masks and names as training sees them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn_benchmark.apps.drawing import distinct_colours, draw_detections
from maskrcnn_benchmark.data.image_targets import ImagePolygons, ImageTargets

_TILE_WIDTH, _TILE_HEIGHT, _TITLE = 400, 300, 18
_GAP, _PAPER, _INK = 6, 255, (40, 40, 40)
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4


def write_contact_sheet(path: Path, dataset: Any, *, tiles: int = 16, columns: int = 4) -> int:
    """Write a sheet with pictures from all over a data set, those with objects first.

    Args:
        path: file to write; its suffix says in which format.
        dataset: a `DetectionDataset`.
        tiles: pictures on the sheet at most.
        columns: pictures in a row.

    Returns:
        The number of pictures.

    Raises:
        OSError: the file cannot be written.
    """
    chosen = _choose(dataset, tiles)
    pictures = [_tile(dataset, index) for index in chosen]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    height, width = _TILE_HEIGHT + _TITLE + _GAP, _TILE_WIDTH + _GAP
    sheet = np.full((rows * height + _GAP, columns * width + _GAP, 3), _PAPER, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        y, x = _GAP + number // columns * height, _GAP + number % columns * width
        sheet[y : y + len(picture), x : x + _TILE_WIDTH] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        written = cv2.imwrite(str(path), sheet)
    except cv2.error:  # an unknown suffix
        written = False
    if not written:
        raise OSError(
            f"the sheet {path} cannot be written; give a file that ends in .png or .jpg, in a folder of yours"
        )
    return len(pictures)


def _choose(dataset: Any, tiles: int) -> list[int]:
    """Indices evenly spread over the pictures with objects; over all where fewer have some."""
    has_objects = [len(dataset.load_targets(index)) > 0 for index in range(len(dataset))]
    shown = [index for index, has in enumerate(has_objects) if has]
    if len(shown) > tiles:
        return [shown[number * len(shown) // tiles] for number in range(tiles)]
    empty = [index for index, has in enumerate(has_objects) if not has]
    return shown + empty[: tiles - len(shown)]


def _tile(dataset: Any, index: int) -> np.ndarray:
    """One picture with its title, uint8 [_TILE_HEIGHT + _TITLE, _TILE_WIDTH, 3]."""
    tile = np.full((_TILE_HEIGHT + _TITLE, _TILE_WIDTH, 3), _PAPER, dtype=np.uint8)
    title = dataset.get_img_info(index)["file_name"]
    try:
        picture = _draw(dataset, index)
    except (OSError, ValueError) as error:
        title = str(error)
    else:
        y, x = (_TILE_HEIGHT - picture.shape[0]) // 2, (_TILE_WIDTH - picture.shape[1]) // 2
        tile[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    most = _TILE_WIDTH // 8
    text = title if len(title) <= most else f"...{title[3 - most :]}"
    text = text.encode("ascii", "replace").decode("ascii")
    cv2.putText(tile, text, (2, _TILE_HEIGHT + _TITLE - 5), _FONT, _FONT_SCALE, _INK, 1, cv2.LINE_AA)
    return tile


def _draw(dataset: Any, index: int) -> np.ndarray:
    image = dataset.load_image(index)
    scale = min(_TILE_WIDTH / image.shape[1], _TILE_HEIGHT / image.shape[0])
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return draw_targets(image, dataset.load_targets(index), dataset.categories)


def draw_targets(image: np.ndarray, targets: ImageTargets, categories: Sequence[str]) -> np.ndarray:
    """A picture with what is annotated in it, in the colours of the classes.

    Args:
        image: uint8 [H, W, 3] BGR, of any size; the targets are scaled to it.
        targets: of the image.
        categories: names of the labels 1..K.
    """
    targets = targets.resize(image.shape[:2])
    colours = distinct_colours(len(categories))
    return draw_detections(
        image,
        targets.boxes,
        [categories[label - 1] for label in targets.labels],
        masks=_masks_of(targets),
        colours=[colours[label - 1] for label in targets.labels] or None,
    )


def _masks_of(targets: ImageTargets) -> np.ndarray | None:
    """The masks as bool [G, H, W]; None without polygons."""
    if targets.polygons is None:
        return None
    masks = np.zeros((len(targets), *targets.image_size), dtype=np.uint8)
    for mask, rings in zip(masks, _rings(targets.polygons), strict=True):
        for ring in rings:
            cv2.fillPoly(mask, [np.round(ring - 0.5).astype(np.int32)], 1)
    return masks.astype(bool)


def _rings(polygons: ImagePolygons) -> list[list[np.ndarray]]:
    bounds = polygons.ring_offsets.tolist()
    rings = [polygons.coords[a:b] for a, b in itertools.pairwise(bounds)]
    owners = polygons.instance_offsets.tolist()
    return [rings[a:b] for a, b in itertools.pairwise(owners)]
