"""example/MaskRCNN.sh and MaskRCNN_voc.sh: the command that clearml-task gets, and the run that an agent makes of it.

A program stands for clearml-task. What it starts is real: the clone, torchrun, two processes, the training.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.apps.clearml_options import make_options, make_parser
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.data.synthetic import ensure_shapes_dataset
from tests.apps.clearml_stubs import CLEARML_TASK, REPOSITORY, make_clone, make_environment, make_program
from tests.apps.tiny_run import CONFIG as TINY_CONFIG
from tests.apps.tiny_run import OPTIONS

EXAMPLES = ("MaskRCNN.sh", "MaskRCNN_voc.sh")
ID = "0123456789abcdef0123456789abcdef"
CHOICES = ("REGISTRY", "IMAGE", "QUEUE", "BRANCH", "DOCKER_ARGS", "CONFIG", "NPROC_PER_NODE", "OPTS", "OUTPUT_URI")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


def run_example(folder, script, *, root=REPOSITORY, **environment):
    make_program(folder / "bin", "clearml-task", CLEARML_TASK)
    inherited = {name: value for name, value in make_environment(folder).items() if name not in CHOICES}
    return subprocess.run(
        ["bash", str(root / "example" / script)], env={**inherited, **environment},
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500,
    )  # fmt: skip


def command_of(folder, script, **environment):
    done = run_example(folder, script, **{"DATASET_ID": ID, **environment})
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "words.json").read_text())


def arguments_of(command):
    return dict(pair.split("=", 1) for pair in command[command.index("--args") + 1 :])


def test_the_command_for_coco(tmp_path):
    assert command_of(tmp_path, "MaskRCNN.sh") == [
        "--project", "clearml-example-project", "--name", "MaskRCNN_e2e_mask_rcnn_R_50_FPN_quick",
        "--script", "tools/clearml_train.py",
        "--docker", "registry.example.com/team/mask_rcnn:latest", "--docker_args=--shm-size=8gb",
        "--skip-python-env-install", "--branch", "main", "--queue", "gpu01",
        "--args", f"dataset_id={ID}", "dataset_path=data/coco",
        "config=configs/quick_schedules/e2e_mask_rcnn_R_50_FPN_quick.yaml",
        "opts=DATASETS.TRAIN coco_2017_train DATASETS.TEST coco_2017_val", "standalone=True", "nproc_per_node=2",
    ]  # fmt: skip


def test_the_command_for_voc(tmp_path):
    assert command_of(tmp_path, "MaskRCNN_voc.sh") == [
        "--project", "clearml-example-project", "--name", "MaskRCNN_e2e_faster_rcnn_R_50_C4_1x_4_gpu_voc",
        "--script", "tools/clearml_train.py",
        "--docker", "registry.example.com/team/mask_rcnn:latest", "--docker_args=--shm-size=8gb",
        "--skip-python-env-install", "--branch", "main", "--queue", "gpu01",
        "--args", f"dataset_id={ID}", "dataset_path=data/VOCdevkit",
        "config=configs/pascal_voc/e2e_faster_rcnn_R_50_C4_1x_4_gpu_voc.yaml",
        "opts=", "standalone=True", "nproc_per_node=2",
    ]  # fmt: skip


@pytest.mark.parametrize("script", EXAMPLES)
def test_choices_come_from_the_environment(tmp_path, script):
    command = command_of(
        tmp_path, script, REGISTRY="host:5000/group", QUEUE="a100", BRANCH="mine", NPROC_PER_NODE="8",
        CONFIG="configs/my own.yaml", OPTS="SOLVER.STEPS '(1, 2)'", DOCKER_ARGS="--ipc=host -e A=b",
        OUTPUT_URI="s3://bucket/models",
    )  # fmt: skip
    for words in (
        ["--docker", "host:5000/group/mask_rcnn:latest"], ["--queue", "a100"], ["--branch", "mine"],
        ["--name", "MaskRCNN_my own"], ["--output-uri", "s3://bucket/models"],
    ):  # fmt: skip
        place = command.index(words[0])
        assert command[place : place + 2] == words
    assert "--docker_args=--ipc=host -e A=b" in command
    arguments = arguments_of(command)
    assert arguments["config"] == "configs/my own.yaml"
    assert arguments["nproc_per_node"] == "8"
    assert shlex.split(arguments["opts"])[-2:] == ["SOLVER.STEPS", "(1, 2)"]


@pytest.mark.parametrize("script", EXAMPLES)
def test_without_a_data_set_nothing_is_sent(tmp_path, script):
    done = run_example(tmp_path, script)
    assert done.returncode != 0
    assert "DATASET_ID" in done.stderr
    assert not (tmp_path / "words.json").exists()


@pytest.mark.parametrize("script", EXAMPLES)
def test_the_tool_knows_what_it_is_sent(tmp_path, script):
    """Each key is an option, the config exists, and its data sets lie below the folder that is unpacked."""
    first, second = (REPOSITORY / "example" / script).read_text().splitlines()[:2]
    assert (first, second[:11]) == ("#!/usr/bin/env bash", "# dataset: ")
    arguments = arguments_of(command_of(tmp_path, script))
    given = make_options(make_parser().parse_args([f"--{key}={value}" for key, value in arguments.items()]))
    tree = cfg.clone()
    tree.merge_from_file(REPOSITORY / given.config)
    tree.merge_from_list(given.opts)
    within = "data/VOC2007" if "voc" in script else ("data/train2017", "data/val2017")
    for name in (*tree.DATASETS.TRAIN, *tree.DATASETS.TEST):
        entry = DatasetCatalog.DATASETS[name]
        assert (entry.get("img_dir") or entry["data_dir"]).startswith(within)


@pytest.mark.extras
@pytest.mark.parametrize("script", EXAMPLES)
def test_clearml_itself_understands_the_command(tmp_path, script):
    parser_of = pytest.importorskip("clearml.cli.task.__main__", reason="clearml is not installed").setup_parser
    from argparse import ArgumentParser

    parser = ArgumentParser()
    parser_of(parser)
    understood = parser.parse_args(command_of(tmp_path, script))
    assert understood.script == "tools/clearml_train.py"
    assert understood.docker_args == "--shm-size=8gb"
    assert understood.skip_python_env_install
    assert understood.args[0] == f"dataset_id={ID}"
    assert len(understood.args) == 6


# An agent-like run.


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What an agent has after it has cloned: no data but those that were unpacked before."""
    root = make_clone(tmp_path_factory.mktemp("agent") / "MaskRCNN.git")
    data = root / "data" / "coco"
    (data / "annotations").mkdir(parents=True)
    for split, number in (("train2017", 20), ("val2017", 4)):
        images, annotations = ensure_shapes_dataset(root.parent, split=split, num_images=number, image_size=200)
        shutil.copytree(images, data / split)
        shutil.copy(annotations, data / "annotations" / f"instances_{split}.json")
    return root


def agent_run(clone, folder, **environment):
    """One run of example/MaskRCNN.sh in the clone, to its end; returns the process and OUTPUT_DIR."""
    keys = {**OPTIONS, "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 5, "OUTPUT_DIR": folder / "out"}
    opts = shlex.join(str(word) for pair in keys.items() for word in pair)
    own = {"STUB_RUNS": "1", "DATASET_ID": ID, "CONFIG": os.path.relpath(TINY_CONFIG, REPOSITORY), "OPTS": opts}
    done = run_example(
        folder, "MaskRCNN.sh", root=clone, **{**own, **environment, "OPTS": opts + environment.get("OPTS", "")}
    )
    return done, folder / "out"


def block_clearml(folder):
    """A folder for PYTHONPATH in which clearml is as good as not installed."""
    folder.mkdir()
    (folder / "clearml.py").write_text("raise ImportError('no module named clearml')")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def plain_run(clone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return agent_run(clone, folder, **block_clearml(folder / "blocked"))


def losses(output):
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.slow
def test_an_agent_like_run_with_two_processes(plain_run):
    done, output = plain_run
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Using 2 process(es)" in (output / "log.txt").read_text()
    assert (output / "dllogger.out").exists()
    assert len(losses(output)) == 4
    weights = torch.load(output / "model_final.pth", weights_only=True)["model"]
    assert all(each.isfinite().all() for each in weights.values())


@pytest.mark.slow
def test_the_status_of_the_training_comes_out(clone, tmp_path):
    """A data set that is not known: the training says so with status 2, which torchrun turns into 1."""
    done, _ = agent_run(clone, tmp_path, OPTS=" DATASETS.TRAIN nothing", **block_clearml(tmp_path / "blocked"))
    assert done.returncode == 2
    assert done.stderr.count("there is no data set 'nothing'") >= 1


@pytest.mark.slow
@pytest.mark.extras
def test_an_offline_session_holds_the_run(clone, plain_run, tmp_path):
    pytest.importorskip("clearml", reason="clearml is not installed")
    done, output = agent_run(clone, tmp_path, CLEARML_OFFLINE_MODE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(output) == losses(plain_run[1]), "with ClearML the training is the same"
    (session,) = (path for path in (tmp_path / ".clearml" / "cache" / "offline").iterdir() if path.is_dir())
    task = json.loads((session / "task.json").read_text())
    arguments = {name: entry["value"] for name, entry in task["hyperparams"]["Args"].items()}
    assert arguments.keys() == {action.dest for action in make_parser()._actions} - {"help"}, (
        "torchrun's own are not there"
    )
    assert arguments["config"] == "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"
    assert arguments["nproc_per_node"] == "2"
    assert task["hyperparams"]["General"]["SOLVER.MAX_ITER"]["value"] == "4"
    assert {"Config", "manifest"} <= {each["key"] for each in task["execution"]["artifacts"]}
    assert list(session.glob("data/*/*/artifacts/Config/config.yml"))
    reported = [each for line in (session / "metrics.jsonl").read_text().splitlines() for each in json.loads(line)]
    scalars = [each for each in reported if each["type"] == "training_stats_scalar"]
    loss = [(each["iter"], each["value"]) for each in scalars if (each["metric"], each["variant"]) == ("loss", "loss")]
    assert [iteration for iteration, _ in loss] == [1, 2, 3, 4]
    assert [value for _, value in loss] == pytest.approx(losses(output), abs=1e-4)
    each_once = Counter((each["metric"], each["variant"], each["iter"]) for each in reported)
    assert set(each_once.values()) == {1}, "nothing is reported twice"
    assert not [name for name in Path(session).rglob("*") if name.suffix == ".pth"], "checkpoints stay where they are"
