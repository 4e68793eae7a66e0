"""Detect on one picture in five lines.

    python example/predict_picture.py RUN_FOLDER PICTURE RESULT.png

RUN_FOLDER is the output folder of a training run, where config and class names are found too; or a .pth file in it.
"""

from __future__ import annotations

import sys

import cv2

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.apps.predict_files import read_upright

if __name__ == "__main__":
    run_folder, picture, result = sys.argv[1:]

    predictor = Predictor.from_checkpoint(run_folder, confidence_threshold=0.5)
    image = read_upright(picture)
    prediction = predictor(image)
    for label, score, box in zip(
        prediction.get_field("labels"), prediction.get_field("scores"), prediction.bbox, strict=True
    ):
        print(f"{predictor.name_of(label)} {score:.2f} at {[round(v) for v in box.tolist()]}")
    cv2.imwrite(result, predictor.draw(image, prediction))
