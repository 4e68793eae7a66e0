"""A COCO keypoint data set of four small images: persons with all, few and no keypoints, a crowd, an empty image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.data.tiny_coco import TinyCoco

NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
# image id -> (height, width)
SIZES = {40: (60, 80), 10: (80, 60), 30: (50, 90), 20: (64, 64)}


def figure(box: tuple[float, float, float, float], num_keypoints: int, *, visible: int) -> list[float]:
    """Keypoints [x, y, v, ...] along a spiral in the box (x, y, width, height); the first ``visible`` are labelled."""
    x, y, width, height = box
    numbers: list[float] = []
    for index in range(num_keypoints):
        angle, radius = 2.4 * index, 0.45 * (index + 1) / num_keypoints
        point = [round(x + width * (0.5 + radius * np.cos(angle))), round(y + height * (0.5 + radius * np.sin(angle)))]
        numbers += [*point, 1 + index % 2] if index < visible else [0, 0, 0]
    return numbers


def keypoint_annotations(num_keypoints: int = 17, names: tuple[str, ...] | None = NAMES) -> dict[str, Any]:
    """The content of the json. Training keeps the images 40 and 10: 30 has three visible keypoints, 20 no object."""
    rows = [
        # image, box x y w h, labelled keypoints, crowd
        (40, (10, 8, 30, 44), num_keypoints, 0),
        (40, (44, 5, 30, 50), 0, 0),
        (40, (0, 0, 79, 20), 0, 1),
        (10, (6, 10, 40, 60), num_keypoints - 2, 0),
        (30, (20, 4, 40, 40), 3, 0),
    ]
    annotations = [
        {
            "id": number,
            "image_id": image_id,
            "category_id": 1,
            "bbox": list(box),
            "area": 0.6 * box[2] * box[3],
            "iscrowd": iscrowd,
            "num_keypoints": labelled,
            "keypoints": figure(box, num_keypoints, visible=labelled),
        }
        for number, (image_id, box, labelled, iscrowd) in enumerate(rows, start=1)
    ]
    category = {"id": 1, "name": "person"} | ({"keypoints": list(names)} if names is not None else {})
    images = [
        {"id": image_id, "height": height, "width": width, "file_name": f"image_{image_id}.jpg"}
        for image_id, (height, width) in SIZES.items()
    ]
    return {"images": images, "annotations": annotations, "categories": [category]}


def write_tiny_keypoints(folder: Path, data: dict[str, Any] | None = None) -> TinyCoco:
    """Write images and json below ``folder``; ``data`` takes the place of `keypoint_annotations`."""
    data = keypoint_annotations() if data is None else data
    root = folder / "images"
    root.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for image in data["images"]:
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (image["width"], image["height"]), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / image["file_name"]), pixels)
    ann_file = folder / "annotations.json"
    ann_file.write_text(json.dumps(data))
    return TinyCoco(root, ann_file, data)
