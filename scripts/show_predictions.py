"""Draws what a trained model finds on its first test pictures, and joins them on one sheet; train.sh ends with it.

python scripts/show_predictions.py RESULTS      writes RESULTS/predictions/ and RESULTS/predictions.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.apps.predict_files import predict_files
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.data.build import make_dataset

COLUMNS, ROWS = 3, 2
TILE = 400  # pixels a side


def sheet(pictures: list[np.ndarray]) -> np.ndarray:
    """The pictures (uint8 [H, W, 3]) in a grid of square tiles, each fitted into its tile on grey."""
    canvas = np.full((ROWS * TILE, COLUMNS * TILE, 3), 64, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        scale = TILE / max(height, width)
        small = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        top, left = index // COLUMNS * TILE, index % COLUMNS * TILE
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def main(results: Path) -> None:
    """Predict with the newest checkpoint in ``results``, whose config.yml names the test pictures."""
    config = cfg.clone()
    config.merge_from_file(str(results / "config.yml"))
    dataset = make_dataset(config, config.DATASETS.TEST[0], is_train=False)
    count = min(COLUMNS * ROWS, len(dataset))
    files = [dataset.root / dataset.get_img_info(index)["file_name"] for index in range(count)]
    device = "cuda" if config.MODEL.DEVICE.startswith("cuda") else "cpu"
    predictor = Predictor.from_checkpoint(results, device=device)
    predict_files(predictor, [str(file) for file in files], results / "predictions")
    pictures = [cv2.imread(str(results / "predictions" / f"{file.stem}.jpg")) for file in files]
    cv2.imwrite(str(results / "predictions.jpg"), sheet(pictures), [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
