"""The examples run as they stand."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.config import cfg, validate
from maskrcnn_benchmark.data.synthetic import ensure_shapes_dataset
from maskrcnn_benchmark.modeling.detector import build_detection_model


def _run(repository: Path, script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(repository / "example" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "2"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_evaluate_results(repository: Path, tmp_path: Path) -> None:
    _, ann_file = ensure_shapes_dataset(tmp_path, split="val", num_images=6)
    keys = ("image_id", "category_id", "bbox")
    objects = [a for a in json.loads(Path(ann_file).read_text())["annotations"] if not a["iscrowd"]]
    (tmp_path / "bbox.json").write_text(json.dumps([{**{k: a[k] for k in keys}, "score": 0.9} for a in objects]))
    assert "bbox AP 1.000" in _run(repository, "evaluate_results.py", ann_file, tmp_path / "bbox.json")


@pytest.mark.slow
def test_train_then_predict(repository: Path, tmp_path: Path) -> None:
    img_dir, ann_file = ensure_shapes_dataset(tmp_path, split="own", num_images=16)
    smaller = ("SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "MODEL.DEVICE", "cpu")
    _run(repository, "train_own_data.py", img_dir, ann_file, ann_file, tmp_path / "run", *smaller)
    picture, result = next(Path(img_dir).iterdir()), tmp_path / "result.png"
    _run(repository, "predict_picture.py", tmp_path / "run", picture, result)
    assert result.stat().st_size > 0
    categories = json.loads((tmp_path / "run" / "categories.json").read_text())
    assert categories[0] == {"id": 1, "name": "circle"}


def test_own_parts_are_chosen_by_the_config(repository: Path) -> None:
    own = runpy.run_path(str(repository / "example" / "register_own_parts.py"))
    config = cfg.clone()
    config.merge_from_file(own["BASE_CONFIG"])
    config.merge_from_list([*own["OWN_PARTS"], "MODEL.DEVICE", "cpu"])
    validate(config)
    model = build_detection_model(config)
    assert type(model.backbone).__name__ == "PlainBackbone"
    assert type(model.roi_heads.box.feature_extractor).__name__ == "MeanAndPeakExtractor"
    results = model.eval()(torch.randn(2, 3, 96, 128))
    assert [result.size for result in results] == [(128, 96)] * 2


@pytest.mark.slow
def test_own_parts_train(repository: Path, tmp_path: Path) -> None:
    shapes = [
        {"name": f"shapes_{split}", "factory": "shapes", "root": "shapes", "split": split, "num_images": 4}
        for split in ("train", "val")
    ]
    data = ("DATASETS.DATA_DIR", tmp_path, "DATASETS.CUSTOM", shapes, "DATALOADER.NUM_WORKERS", 0)
    smaller = ("SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "TEST.IMS_PER_BATCH", 2, "MODEL.DEVICE", "cpu")
    _run(repository, "register_own_parts.py", tmp_path / "run", *data, *smaller)
    assert (tmp_path / "run" / "model_final.pth").exists()
