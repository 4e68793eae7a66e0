"""A folder like the competition's /DATA: Korean names, keys left out, ids in no order; and a config soon done."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CITIES = ("서울", "부산", "대구광역", "인천")
WEATHER = ("맑음", "흐림", "비")
HEIGHT, WIDTH = 48, 64
NUM_CLASSES = 14

# The network of tests/apps/tiny_run.py, without masks.
TINY = {
    "DTYPE": "float32",
    "NHWC": False,
    "CPU_THREADS": 1,
    "REPORT": False,
    "MODEL": {
        "DEVICE": "cpu",
        "WEIGHT": "",
        "BACKBONE": {"CONV_BODY": "R-18-FPN", "FREEZE_CONV_BODY_AT": 0, "OUT_CHANNELS": 16},
        "RESNETS": {
            "TRANS_FUNC": "BasicBlockWithBatchNorm",
            "STEM_FUNC": "StemWithBatchNorm",
            "STRIDE_IN_1X1": False,
            "STEM_OUT_CHANNELS": 8,
            "RES2_OUT_CHANNELS": 8,
        },
        "RPN": {
            "ANCHOR_SIZES": [8, 12, 16, 24, 32],
            "STRADDLE_THRESH": -1,
            "BATCH_SIZE_PER_IMAGE": 32,
            "PRE_NMS_TOP_N_TRAIN": 60,
            "POST_NMS_TOP_N_TRAIN": 30,
            "FPN_POST_NMS_TOP_N_TRAIN": 60,
            "PRE_NMS_TOP_N_TEST": 30,
            "FPN_POST_NMS_TOP_N_TEST": 20,
        },
        "ROI_HEADS": {"BATCH_SIZE_PER_IMAGE": 16, "SCORE_THRESH": 0.01},
        "ROI_BOX_HEAD": {"MLP_HEAD_DIM": 32},
    },
    "INPUT": {
        "MIN_SIZE_TRAIN": HEIGHT,
        "MAX_SIZE_TRAIN": WIDTH,
        "MIN_SIZE_TEST": HEIGHT,
        "MAX_SIZE_TEST": WIDTH,
        "PIXEL_STD": [57.375, 57.12, 58.395],
    },
    "DATALOADER": {"NUM_WORKERS": 0},
    "SOLVER": {
        "IMS_PER_BATCH": 2,
        "BASE_LR": 0.01,
        "WARMUP_ITERS": 4,
        "STEPS": [12, 16],
        "MAX_ITER": 20,
        "MAX_GRAD_NORM": 5.0,
        "CHECKPOINT_PERIOD": 8,
        "LOG_PERIOD": 5,
        "MAX_TIME": 0.0,
        "MAX_TIME_FIT_AFTER": 0,
    },
    "TEST": {"IMS_PER_BATCH": 8, "MAX_TIME": 0.0, "BOOTSTRAP": 0},
    "TRACKING": {"BACKENDS": ["jsonl"]},
}


def write_config(path, **changes):
    """A config over the official one; ``SOLVER__MAX_ITER=3`` changes a key."""
    tree = json.loads(json.dumps(TINY))
    for key, value in changes.items():
        *sections, name = key.split("__")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    text = yaml.safe_dump({"_BASE_": str(REPOSITORY / "configs" / "parking_2022.yaml"), **tree})
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def picture(generator):
    """A noisy picture with some bright boxes, and these as [x, y, width, height] with their categories."""
    pixels = generator.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    objects = []
    for _ in range(int(generator.integers(1, 4))):
        width, height = (int(each) for each in generator.integers(10, 24, 2))
        x, y = int(generator.integers(0, WIDTH - width)), int(generator.integers(0, HEIGHT - height))
        category = int(generator.integers(1, NUM_CLASSES + 1))
        pixels[y : y + height, x : x + width] = (17 * category, 255 - 15 * category, 40 * (category % 6))
        objects.append((category, [x, y, width, height]))
    return pixels, objects


def _save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def write_tree(root, *, num_train=300, num_test=200, seed=0):
    """Write the folder; gives the content of Train.json and of Test_Images_Information.json."""
    generator, order = np.random.default_rng(seed), random.Random(seed)
    root = Path(root)
    images, annotations = [], []
    ids = order.sample(range(1, 100_000), num_train)
    for number, image_id in enumerate(ids):
        city, weather = CITIES[number % len(CITIES)], WEATHER[number % len(WEATHER)]
        name = f"20201102_{city}_-_-_{weather}_주간_주차장_right_{number:06d}_{number * 7:07d}.png"
        pixels, objects = picture(generator)
        # Of some files the disk has the letters of the syllables, as a Mac writes them.
        _save(root / "train/images" / (unicodedata.normalize("NFD", name) if number % 5 == 0 else name), pixels)
        image = {"id": image_id, "file_name": name}
        if number % 3 == 0:
            image |= {"width": WIDTH, "height": HEIGHT}
        images.append(image)
        for category, box in objects:
            annotation = {"image_id": image_id, "category_id": category, "bbox": box}
            if len(annotations) % 4 == 0:
                annotation |= {"id": len(annotations), "iscrowd": 0, "area": box[2] * box[3]}
            if len(annotations) % 7 == 0:
                annotation |= {"segmentation": "none"}
            annotations.append(annotation)
    order.shuffle(images)
    train = {"images": images, "annotations": annotations}
    (root / "train/label").mkdir(parents=True, exist_ok=True)
    (root / "train/label/Train.json").write_text(json.dumps(train, ensure_ascii=False), encoding="utf-8")
    rows = []
    for number, image_id in enumerate(order.sample(range(1, 50_000), num_test)):
        name = f"{order.getrandbits(64):016x}-{number:04d}.png"
        _save(root / "test/images" / name, picture(generator)[0])
        rows.append({"id": image_id, "file_name": name})
    information = {"images": rows}
    (root / "Test_Images_Information.json").write_text(json.dumps(information))
    return train, information
