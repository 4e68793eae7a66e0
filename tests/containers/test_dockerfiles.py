"""The Dockerfiles: what stands in them, and their steps run on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers.image_builder import (
    DOCKERFILES,
    REPOSITORY,
    TINY,
    Ignored,
    Machine,
    expand,
    parse,
    stages,
    steps_of,
)

NGC = "nvcr.io/nvidia/pytorch:26.07-py3"


def test_stages_and_their_order():
    arguments, found = stages(REPOSITORY / "Dockerfile")
    assert arguments == {"FROM_IMAGE_NAME": NGC}
    assert [name for name in found if name] == ["base", "clearml", "ymir", "harness"]
    assert found[""] is found["harness"]
    assert {name: each.base for name, each in found.items() if name} == {
        "base": "${FROM_IMAGE_NAME}", "clearml": "base", "ymir": "base", "harness": "base",
    }  # fmt: skip
    assert stages(REPOSITORY / "Dockerfile.cpu")[0]["FROM_IMAGE_NAME"].startswith("python:3.")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_arguments_and_health(path):
    steps = steps_of(path)
    given = {step.value.partition("=")[0]: step.value.partition("=")[2] for step in steps if step.word == "ARG"}
    assert given["TZ"] == "Asia/Tokyo"
    assert {"APT_MIRROR", "PIP_INDEX_URL", "PIP_TRUSTED_HOST"} <= set(given)
    health = [step.value for step in steps if step.word == "HEALTHCHECK"]
    assert len(health) == 1
    assert health[0].endswith('CMD ["maskrcnn-health"]')
    if path.name != "MaskRCNN":
        assert [step.value for step in steps if step.word == "USER"] == ["${UID}:${GID}"]
        assert (given["UID"], given["GID"], given["USER"]) == ("0", "0", "root"), "root, as published"


def test_the_harness_keeps_its_published_places():
    steps = steps_of(REPOSITORY / "Dockerfile")
    assert [step.value for step in steps if step.word == "WORKDIR"] == ["/workspace/object_detection"]
    assert "OMP_NUM_THREADS=1" in [step.value for step in steps if step.word == "ENV"]
    folders = next(step.value for step in steps if "install -d -m 1777 /results" in step.value)
    assert "/datasets/data" in folders


def test_the_file_of_the_clearml_team_is_the_stage():
    """In the order of the team's template: base, system packages and time zone, packages, agent and boto3 last."""
    path = REPOSITORY / "docker" / "MaskRCNN"
    assert stages(path)[0] == stages(REPOSITORY / "Dockerfile")[0]
    steps = steps_of(path)
    stage = steps_of(REPOSITORY / "Dockerfile", "clearml")
    assert steps == [step for index, step in enumerate(stage) if step.word != "ARG" or step not in stage[:index]]
    runs = [step.value for step in steps if step.word == "RUN"]
    assert "tzdata" in runs[0]
    assert "/etc/localtime" in runs[0]
    assert "requirements.py" in runs[1]
    assert re.search(r"pip install .*clearml-agent.*boto3", runs[-1])
    assert not any(step.word == "COPY" and step.value == ". ." for step in steps), "the code is mounted or cloned"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_not_ignored(path):
    ignored = Ignored((REPOSITORY / ".dockerignore").read_text())
    for step in steps_of(path):
        if step.word == "COPY" and step.value != ". .":
            source = step.value.split()[0]
            assert (REPOSITORY / source).is_file()
            assert source not in ignored


def test_what_docker_is_not_given():
    ignored = Ignored((REPOSITORY / ".dockerignore").read_text())
    for name in (".git/config", ".venv/bin/python", ".env", "maskrcnn_benchmark/_C.abi3.so", "runs/a/model_final.pth",
                 "data/coco/a.jpg", "results/log.txt", "tests/__pycache__/a.pyc", "mlruns/0/meta.yaml"):  # fmt: skip
        assert name in ignored, name
    for name in ("maskrcnn_benchmark/data/build.py", "setup.py", "csrc/module.cpp", ".env.default"):
        assert name not in ignored, name


def test_the_reader_of_dockerfiles():
    text = "FROM a AS b\n# no\nRUN one \\\n    # between\n    && two\nENV A=1\n"
    assert [(step.word, step.value) for step in parse(text)] == [
        ("FROM", "a AS b"), ("RUN", "one && two"), ("ENV", "A=1"),
    ]  # fmt: skip
    assert expand("${A}:$B-${C}", {"A": "1", "B": "2"}) == "1:2-"


def test_dependencies_are_those_of_pyproject():
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    command = [sys.executable, REPOSITORY / "docker" / "requirements.py", "tensorboard"]
    printed = subprocess.check_output(command, text=True).splitlines()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["tensorboard"]]
    assert printed == [each for each in wanted if not each.startswith("torch")]


TRAIN = (
    "bash scripts/train.sh configs/demo/mask_rcnn_R_18_FPN_shapes.yaml SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2"
    f' DATASETS.CUSTOM "{TINY}"'
)


@pytest.fixture
def folder_that_goes(tmp_path):
    """An image has gigabytes, which pytest would keep."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.extras
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("file", "number"), [("Dockerfile", 6), ("Dockerfile.cpu", 5), ("docker/MaskRCNN", 4)])
def test_every_run_line_runs_here(file, number, folder_that_goes):
    """In order, on this machine's own files; then the image works for a user whom nobody knows."""
    python = Path(sys.executable).parent
    if file == "Dockerfile.cpu":  # whose base has no torch
        machine = Machine(folder_that_goes, PATH=f"/opt/python/bin{os.pathsep}{os.environ['PATH']}")
        assert machine.run(f"{sys.executable} -m venv /opt/python").returncode == 0
    else:
        machine = Machine(folder_that_goes, PATH=f"{python}{os.pathsep}{os.environ['PATH']}")
    given = {"FORCE_CUDA": "0", "TORCH_INDEX_URL": os.environ.get("TORCH_INDEX_URL", "")}
    ran = machine.build(steps_of(REPOSITORY / file), given)
    assert len(ran) == number
    stranger = "12345:12345"
    date = machine.run("date +%Z", stranger).stdout.strip()
    assert date == "JST"
    health = machine.run("maskrcnn-health", stranger)
    assert (health.returncode, health.stdout) == (0, "")
    if file == "docker/MaskRCNN":
        assert machine.run("clearml-agent --version").returncode == 0
        return
    for command in ("fish -c 'echo fish'", "tensorboard --version", "mlflow --version", "jupyter-lab --version"):
        done = machine.run(command, stranger)
        assert done.returncode == 0, done.stderr
    done = machine.run(TRAIN, stranger)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (machine.upper / "results" / "model_final.pth").is_file()
    extension = (machine.upper / "workspace" / "object_detection" / "maskrcnn_benchmark").glob("_C*.so")
    assert next(extension).stat().st_size > 100_000
    assert not (machine.upper / "workspace" / "object_detection" / ".venv").exists(), "it used the image's own Python"


def test_health(tmp_path):
    """A GPU that is lost and a folder that cannot be written are said; no driver at all is in order."""
    script = ["bash", str(REPOSITORY / "docker" / "healthcheck.sh")]
    driver = tmp_path / "nvidia-smi"

    def health(answer=None, **environment):
        driver.unlink(missing_ok=True)
        if answer is not None:
            driver.write_text(f"#!/bin/sh\necho '{answer}'\n")
            driver.chmod(0o755)
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(script, env=os.environ | {"PATH": path, "RESULTS": str(tmp_path)} | environment,
                              capture_output=True, text=True)  # fmt: skip

    assert health().returncode == 0
    assert health("GPU 0: NVIDIA H200 (UUID: GPU-1)").returncode == 0
    lost = health("Failed to initialize NVML: Unknown Error")
    assert lost.returncode == 1
    assert "no GPU any more" in lost.stdout
    full = tmp_path / "df"
    full.write_text("#!/bin/sh\necho head\necho 'disk 9 9 500000 99% /'\n")
    full.chmod(0o755)
    assert "less than 1 GB" in health().stdout


@pytest.mark.parametrize(("word", "managed"), [(None, True), ("1", False)])
def test_the_images_own_python_is_used_when_pip_may_change_it(word, managed, tmp_path):
    """Where its system marks it as managed, scripts/lib.sh would make .venv, and download torch again."""
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    python = tmp_path / "python"
    disguise = f"import sys, sysconfig; sys.prefix = sys.base_prefix; sysconfig.get_path = lambda _: {str(tmp_path)!r}"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{disguise}; exec(sys.argv[2])" "$@"\n')
    python.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name != "PIP_BREAK_SYSTEM_PACKAGES"}
    command = f'source "{REPOSITORY}/scripts/lib.sh"; is_externally_managed "{python}"'
    given = {} if word is None else {"PIP_BREAK_SYSTEM_PACKAGES": word}
    done = subprocess.run(["bash", "-c", command], env=kept | given, capture_output=True, text=True)
    assert (done.returncode == 0) is managed, done.stderr
    assert "PIP_BREAK_SYSTEM_PACKAGES=1" in [step.value for step in steps_of(REPOSITORY / "Dockerfile")]
