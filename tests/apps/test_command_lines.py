"""What the programs load: no torch for --help or a mistyped flag, and no library that the work does not need."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for path in (*REPOSITORY.glob("*.py"), *REPOSITORY.glob("tools/**/*.py"), *REPOSITORY.glob("demo/*.py"))
    if path.name != "setup.py" and "__main__" in path.read_text(encoding="utf-8")
)
NEEDS = {"tools/train_hydra.py": "hydra"}
# Optional, or for a part of the work: they are read where that begins.
HEAVY = {
    "IPython", "PIL", "clearml", "hydra", "matplotlib", "mlflow", "neptune", "onnx", "onnxruntime", "pandas", "scipy",
    "tensorboard", "torchvision", "wandb",
}  # fmt: skip


def start(program, *words):
    """(exit status, what it printed, top-level modules that it loaded)."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(program), *words], cwd=REPOSITORY, capture_output=True, text=True
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in re.findall(r"import time:.*", done.stderr)}
    return done.returncode, done.stdout + re.sub(r"import time:.*\n", "", done.stderr), loaded


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_needs_no_torch(program):
    if program in NEEDS and importlib.util.find_spec(NEEDS[program]) is None:
        pytest.skip(f"{NEEDS[program]} is not installed")
    status, printed, loaded = start(program, "--help")
    assert status == 0, printed
    assert len(printed.split()) > 10
    assert "argparse" in loaded  # the list of modules was understood
    assert not loaded & {"torch", "maskrcnn_benchmark._C"}


@pytest.mark.parametrize("program", ["tools/train_net.py", "tools/predict.py"])
def test_a_mistyped_flag_needs_no_torch(program):
    status, printed, loaded = start(program, "--weihgts", "model.pth")
    assert status == 2
    assert "required" in printed or "unrecognized" in printed
    assert "torch" not in loaded


def test_a_program_that_loads_torch_is_found(tmp_path):
    (tmp_path / "torch.py").touch()
    program = tmp_path / "program.py"
    program.write_text("import argparse\nimport torch\nargparse.ArgumentParser().parse_args()\n")
    assert "torch" in start(program, "--help")[2]


def test_programs_are_found():
    assert {"tools/train_net.py", "tools/test_net.py", "tools/cityscapes/convert_cityscapes_to_coco.py"} <= {*PROGRAMS}


def test_the_work_loads_what_it_needs(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("from maskrcnn_benchmark.apps import predict_files, test, train\n")
    status, printed, loaded = start(program)
    assert status == 0, printed
    assert "torch" in loaded
    assert not loaded & HEAVY
    assert "sympy" not in loaded, "torch.compile was imported (torch._dynamo), which takes as long as importing torch"
