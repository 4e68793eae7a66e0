"""What a run found in the images it did best and worst on, beside what is annotated, on one picture a data set."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn_benchmark.apps.report.data_sets import open_data_sets
from maskrcnn_benchmark.apps.report.pictures import LONGER_SIDE, picture_groups
from maskrcnn_benchmark.apps.report.run_folder import RunFolder
from maskrcnn_benchmark.apps.report.settings import build_run_config
from maskrcnn_benchmark.checkpoint.files import write_atomically

SHEET_FILE = "predictions.jpg"
_COLUMNS = 2  # of pairs
_GAP, _TITLE, _PAPER, _INK = 8, 20, 255, (40, 40, 40)


def write_prediction_sheets(folder: Path) -> list[tuple[str, Path]]:
    """Write inference/<data set>/predictions.jpg for each tested data set that is on this machine.

    Args:
        folder: OUTPUT_DIR of a run whose results have been evaluated.

    Returns:
        (data set, file) of each.

    Raises:
        OSError, ValueError: the folder holds no run, or a file cannot be written.
    """
    run = RunFolder.read(folder)
    cfg = build_run_config(run)
    data_sets = open_data_sets(cfg, list(run.tests), []) if cfg is not None else {}
    pairs: dict[str, list[Mapping[str, Any]]] = {}
    for name, title, group in picture_groups(run, data_sets, []):
        pairs.setdefault(name, []).extend({**pair, "remark": f"{title}: {pair['remark']}"} for pair in group)
    written = []
    for name, group in pairs.items():
        path = folder / "inference" / name / SHEET_FILE
        _write(path, draw_sheet(group))
        written.append((name, path))
    return written


def draw_sheet(pairs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Pairs of pictures in rows, annotated left and found right, each pair with its remark below.

    Args:
        pairs: of ``picture_pairs``; at least one.

    Returns:
        uint8 [H, W, 3] BGR.
    """
    tiles = [_tile(pair) for pair in pairs]
    rows = [tiles[first : first + _COLUMNS] for first in range(0, len(tiles), _COLUMNS)]
    heights = [max(tile.shape[0] for tile in row) + _GAP for row in rows]
    width = tiles[0].shape[1] + _GAP
    sheet = np.full((sum(heights) + _GAP, min(len(tiles), _COLUMNS) * width + _GAP, 3), _PAPER, dtype=np.uint8)
    y = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            x = _GAP + column * width
            sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        y += height
    return sheet


def _tile(pair: Mapping[str, Any]) -> np.ndarray:
    """One pair, uint8 [H, 2 * LONGER_SIDE + _GAP, 3]."""
    left, right = (_decode(pair[side]) for side in ("truth", "found"))
    tile = np.full((left.shape[0] + _TITLE, 2 * LONGER_SIDE + _GAP, 3), _PAPER, dtype=np.uint8)
    for number, picture in enumerate((left, right)):
        x = number * (LONGER_SIDE + _GAP)
        tile[: picture.shape[0], x : x + picture.shape[1]] = picture
    text = f"{pair['name']}  {pair['remark']}".encode("ascii", "replace").decode("ascii")
    at = (2, tile.shape[0] - 6)
    cv2.putText(tile, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    return tile


def _write(path: Path, picture: np.ndarray) -> None:
    _, encoded = cv2.imencode(".jpg", picture)
    write_atomically(str(path), lambda file: file.write(encoded.tobytes()))


def _decode(picture: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
