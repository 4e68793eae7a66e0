"""The notebook runs from its first cell to its last, in a kernel of its own."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture
def outputs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[dict]]:
    """What each code cell shows, after a short training."""
    nbformat = pytest.importorskip("nbformat", reason="the extra notebook is not installed")
    client = pytest.importorskip("nbclient", reason="the extra notebook is not installed")
    pytest.importorskip("ipykernel", reason="the extra notebook is not installed")
    pytest.importorskip("matplotlib", reason="the extra notebook is not installed")
    for name, value in (("RESULTS", tmp_path / "run"), ("DATA_DIR", tmp_path), ("ITERATIONS", 40)):
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(repository / "example" / "train_and_predict.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    resources = {"metadata": {"path": str(repository / "example")}}
    client.NotebookClient(notebook, timeout=500, resources=resources).execute()
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
@pytest.mark.extras
def test_the_notebook_trains_evaluates_and_draws(outputs: list[list[dict]], tmp_path: Path) -> None:
    assert (tmp_path / "run" / "model_final.pth").is_file()
    *_, curves, answer, drawings = outputs
    assert _picture(curves).shape[1] > 600
    text = "".join(output["text"] for output in answer if output["output_type"] == "stream")
    assert 0 < float(text.split("box AP ")[1].split(",")[0]) < 1
    assert len(np.unique(_picture(drawings).reshape(-1, 3), axis=0)) > 1000  # three pictures, no empty frames


def _picture(outputs: list[dict]) -> np.ndarray:
    (data,) = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
