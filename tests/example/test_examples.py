"""The examples run as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskrcnn_benchmark.data.synthetic import ensure_shapes_dataset


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
