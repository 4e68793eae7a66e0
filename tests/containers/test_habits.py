"""docker-compose, .env, the editor, the hooks before a commit, and the linters."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.containers.image_builder import (
    DOCKERFILES,
    REPOSITORY,
    TINY,
    program,
    stages,
)

SHELL_FILES = sorted([*REPOSITORY.glob("scripts/docker/*.sh"), *REPOSITORY.glob("docker/**/*.sh")])


def test_compose_has_the_published_shape():
    text = (REPOSITORY / "docker-compose.yaml").read_text()
    compose = yaml.safe_load(text)
    assert list(compose["services"]) == ["mask_rcnn"]
    service = compose["services"]["mask_rcnn"]
    assert service == {
        "container_name": "MaskRCNN",
        "build": {"context": ".", "dockerfile": "./docker/MaskRCNN"},
        "shm_size": "8gb",
        "volumes": ["./:/workspace/MaskRCNN", "./data:/workspace/data", "./configs:/workspace/configs"],
        "command": '/bin/sh -c "while sleep 1000; do :; done"',
        "deploy": {"resources": {"reservations": {"devices": [{"driver": "nvidia", "capabilities": ["gpu"]}]}}},
    }
    assert (REPOSITORY / service["build"]["dockerfile"]).is_file()


@pytest.mark.extras
def test_docker_compose_accepts_it(tmp_path):
    compose = [program("docker-compose"), "-f"]
    path = REPOSITORY / "docker-compose.yaml"
    done = subprocess.run([*compose, path, "config"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    service = yaml.safe_load(done.stdout)["services"]["mask_rcnn"]
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert subprocess.check_output([*compose, path, "config", "--services"], text=True).split() == ["mask_rcnn"]
    wrong = tmp_path / "docker-compose.yaml"
    wrong.write_text(path.read_text().replace("  mask_rcnn:", "  Mask_rcnn:"))
    assert subprocess.run([*compose, wrong, "config", "-q"], capture_output=True).returncode != 0


@pytest.mark.extras
def test_hadolint():
    done = subprocess.run([program("hadolint"), *DOCKERFILES], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.extras
def test_shellcheck():
    done = subprocess.run([program("shellcheck"), "-x", *SHELL_FILES], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_env_default_is_complete_and_holds_no_secret():
    lines = [line for line in (REPOSITORY / ".env.default").read_text().splitlines() if not line.startswith("#")]
    values = dict(line.split("=", 1) for line in lines)
    assert values.items() >= {
        "TZ": "Asia/Tokyo", "PYTHONPATH": "/workspace", "PROJECT_ROOT": "/workspace", "DATASET": "/dataset",
        "HYDRA_FULL_ERROR": "1", "NEPTUNE_API_TOKEN": "",
    }.items()  # fmt: skip
    assert "/.env" in (REPOSITORY / ".gitignore").read_text().split()
    assert ".env" in (REPOSITORY / ".dockerignore").read_text().split()


@pytest.mark.parametrize("name", ["launch", "extensions", "tasks"])
def test_the_editor_can_read_its_files(name):
    assert json.loads((REPOSITORY / ".vscode" / f"{name}.json").read_text())


def test_what_the_editor_starts_exists():
    recommended = json.loads((REPOSITORY / ".vscode" / "extensions.json").read_text())["recommendations"]
    assert {"ms-python.python", "ms-python.vscode-pylance", "ms-azuretools.vscode-docker"} <= set(recommended)
    assert all(re.fullmatch(r"[\w-]+\.[\w-]+", each) for each in recommended)
    launch = json.loads((REPOSITORY / ".vscode" / "launch.json").read_text())["configurations"]
    first, train, _ = launch
    assert first["args"] == ["debug=True", "experiment_name=__debug__"]
    assert (first["program"], first["console"]) == ("${file}", "integratedTerminal")
    tasks = json.loads((REPOSITORY / ".vscode" / "tasks.json").read_text())["tasks"]
    words = [word for task in tasks for word in task["args"]] + train["args"] + [train["program"]]
    paths = [word.removeprefix("${workspaceFolder}/") for word in words if re.search(r"\.(sh|py|yaml)$", word)]
    assert len(paths) == 7
    assert [path for path in paths if not (REPOSITORY / path).is_file()] == []


@pytest.mark.slow
def test_what_f5_starts_trains(tmp_path):
    """The arguments of the second entry, as VS Code gives them; only the results go elsewhere."""
    train = json.loads((REPOSITORY / ".vscode" / "launch.json").read_text())["configurations"][1]
    words = [str(tmp_path) if word == "runs/vscode" else "2" if word == "20" else word for word in train["args"]]
    command = [sys.executable, train["program"].replace("${workspaceFolder}", str(REPOSITORY)), *words]
    environment = os.environ | {"DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(REPOSITORY)}
    small = ["DATASETS.CUSTOM", TINY]
    subprocess.run([*command, *small], cwd=REPOSITORY, env=environment, check=True, capture_output=True, timeout=500)
    assert (tmp_path / "model_final.pth").is_file()


def test_the_dev_container_fits_the_dockerfile():
    container = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text())
    build = container["build"]
    folder = REPOSITORY / ".devcontainer"
    assert (folder / build["dockerfile"]).resolve() == REPOSITORY / "Dockerfile"
    assert build["target"] in stages(REPOSITORY / "Dockerfile")[1]
    assert (REPOSITORY / container["postCreateCommand"].split()[1]).is_file()
    assert container["workspaceMount"].split(",")[1] == f"target={container['workspaceFolder']}"


def test_the_versions_of_the_hooks_are_those_of_the_project():
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pyproject = (REPOSITORY / "pyproject.toml").read_text()
    for hook in hooks:
        for wanted in hook.get("additional_dependencies", []):
            assert f'"{wanted}"' in pyproject, f"{hook['id']}: {wanted}"


@pytest.mark.slow
@pytest.mark.extras
def test_pre_commit_passes_and_finds(tmp_path):
    """All hooks, on all files that git knows, in a repository of their own; then on files that they must refuse."""
    command = [program("pre-commit"), "run", "--all-files"]
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=REPOSITORY, text=True).split("\0")[:-1]
    copy = tmp_path / "copy"
    for name in filter(lambda name: (REPOSITORY / name).is_file(), names):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy / name)
    environment = os.environ | {"PRE_COMMIT_HOME": str(tmp_path / "hooks"), "PRE_COMMIT_COLOR": "never"}

    def run():
        subprocess.run(["git", "add", "-A"], cwd=copy, check=True)
        if (copy / ".env").exists():
            subprocess.run(["git", "add", "-f", ".env"], cwd=copy, check=True)  # as somebody does who insists
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)

    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    done = run()
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Passed") == 5
    (copy / "bad.py").write_text("import os\n")
    (copy / "bad.sh").write_text("#!/bin/bash\nrm $1\n")
    (copy / "Dockerfile.cpu").write_text("FROM python\n")
    (copy / ".env").write_text("NEPTUNE_API_TOKEN=abc\n")
    refused = run().stdout
    assert sorted(re.findall(r"hook id: (\S+)", refused)) == [
        "hadolint", "no-env-file", "no-secrets", "ruff-check", "shellcheck",
    ]  # fmt: skip


def test_a_pull_request_asks_for_what_an_experiment_needs():
    template = (REPOSITORY / ".github" / "pull_request_template.md").read_text()
    for wanted in ("Data set", "Config", "Script", "Metric", "ClearML task"):
        assert f"| {wanted}" in template or wanted in template
    assert "Experiments" in template
    assert "## Experiments" in (REPOSITORY / "CONTRIBUTING.md").read_text()
