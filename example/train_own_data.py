"""Train on one's own data by config alone: no code and no catalogue is edited.

    python example/train_own_data.py IMAGE_FOLDER TRAIN.json VAL.json OUTPUT_FOLDER [KEY VALUE ...]

The json files are in COCO format. The network is that of the demo: small, from random weights. For photographs take
configs/e2e_mask_rcnn_R_50_FPN_1x.yaml and its pretrained backbone instead; the settings below stay the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from maskrcnn_benchmark.apps.train import main, make_parser
from maskrcnn_benchmark.config import cfg

BASE_CONFIG = Path(__file__).resolve().parent.parent / "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"


def own_data_options(image_folder: str, train_json: str, val_json: str) -> list[str]:
    """The settings that name one's own data, as KEY VALUE pairs; paths become absolute."""
    num_categories = len(json.loads(Path(train_json).read_text())["categories"])
    splits = {"own_train": train_json, "own_val": val_json}
    entries = [
        {"name": name, "img_dir": str(Path(image_folder).resolve()), "ann_file": str(Path(ann_file).resolve())}
        for name, ann_file in splits.items()
    ]
    return [
        *("DATASETS.CUSTOM", str(entries)),
        *("DATASETS.TRAIN", "('own_train',)"),
        *("DATASETS.TEST", "('own_val',)"),
        *("MODEL.ROI_BOX_HEAD.NUM_CLASSES", str(num_categories + 1)),  # one more for the background
    ]


if __name__ == "__main__":
    image_folder, train_json, val_json, output_folder, *more = sys.argv[1:]
    options = [*own_data_options(image_folder, train_json, val_json), "OUTPUT_DIR", output_folder, *more]
    summary = str(Path(output_folder, "dllogger.out"))
    Path(output_folder).mkdir(parents=True, exist_ok=True)
    main(make_parser().parse_args(["--config-file", str(BASE_CONFIG), "--json-summary", summary, *options]), cfg)
