"""What a run does with each kind of file that may come from a stranger, as one call with one path."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.apps.predict_files import read_upright
from maskrcnn_benchmark.checkpoint import Checkpointer
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config import validate
from maskrcnn_benchmark.config.catalog import custom_entries
from maskrcnn_benchmark.data import make_dataset
from maskrcnn_benchmark.data.datasets.image_size import read_image_size
from maskrcnn_benchmark.data.datasets.instance_png import read_ids
from maskrcnn_benchmark.data.image_io import read_image
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.solver import make_lr_scheduler, make_optimizer
from tests.checkpoint.foreign import Skeleton
from tests.fuzz.escapes import WAYS

# Names and shapes of a network that every file of weights among the seeds fills.
SHAPES = {
    "backbone.body.stem.conv1.weight": [4, 3, 3, 3],
    "backbone.body.stem.bn1.weight": [4],
    "backbone.body.stem.bn1.bias": [4],
    "backbone.body.stem.bn1.running_mean": [4],
    "backbone.body.stem.bn1.running_var": [4],
    "rpn.head.conv.weight": [4, 4, 3, 3],
    "roi_heads.box.predictor.cls_score.bias": [3],
    "roi_heads.box.predictor.bbox_pred.bias": [12],
}
WITHOUT_MASKS = ("voc", "voc_folder")


def use_config(path: Path) -> None:
    """Merge, check and build, on no device, so that the sizes of layers cost nothing."""
    cfg = defaults.clone()
    cfg.merge_from_file(path)
    cfg.MODEL.DEVICE = "cpu" if cfg.MODEL.DEVICE == "cuda" else cfg.MODEL.DEVICE
    custom_entries(cfg)
    validate(cfg)
    with torch.device("meta"):
        model = build_detection_model(cfg)
    make_lr_scheduler(cfg, make_optimizer(cfg, model))
    cfg.dump()


def use_weights(path: Path) -> None:
    """Start from a file, whoever wrote it; with the ending ".own" go on from it as a checkpoint of this run."""
    model = Skeleton(SHAPES)
    if path.suffix != ".own":
        Checkpointer(model).load_weights(str(path))
    else:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1, momentum=0.9)
        Checkpointer(model, optimizer).load(str(path))
    for name, tensor in model.state_dict().items():
        assert list(tensor.shape) == SHAPES[name]
        tensor.sum().item()  # all of it can be read


def use_annotations(kind: str, entry: dict[str, Any]) -> None:
    """Open a data set as training does, and read the objects of every image."""
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.MASK_ON", kind not in WITHOUT_MASKS, "MODEL.RPN_ONLY", True])
    cfg.DATASETS.CUSTOM = [{"name": "own", **entry}]
    dataset = make_dataset(cfg, "own", is_train=False)
    dataset.aspect_ratios()
    for index in range(len(dataset)):
        targets = dataset.load_targets(index)
        assert np.isfinite(targets.boxes).all()
        polygons = targets.polygons
        if polygons is not None and len(polygons.ring_offsets):
            assert polygons.ring_offsets[-1] == len(polygons.coords)


def use_image(path: Path) -> None:
    """Decode a picture, look at its size, and take it for a mask where it is a png."""
    errors = []
    for read in (read_image_size, read_image, read_upright, *([read_ids] if path.suffix == ".png" else [])):
        try:
            read(path)
        except (ValueError, OSError) as error:
            errors.append(error)
    for error in errors:
        assert path.name in str(error), error
    if errors:
        raise errors[0]


def use(area: str, path: str, kind: str = "", entry: dict[str, Any] | None = None) -> None:
    """Use a file of one of the areas config, weights, image, or the data set of an annotation file."""
    logging.disable(logging.CRITICAL)
    if area == "annotations":
        use_annotations(kind, entry or {})
    elif area == "escape":
        WAYS[path]()
    else:
        {"config": use_config, "weights": use_weights, "image": use_image}[area](Path(os.fspath(path)))
