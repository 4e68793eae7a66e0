"""The image: what YMIR reads from it, and its steps run on this machine up to a task that ends well."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from maskrcnn_benchmark.ymir.settings import JobSettings
from tests.containers.image_builder import REPOSITORY, Machine, stages, steps_of
from tests.ymir import small
from tests.ymir.platform import consumer, monitor
from tests.ymir.platform.photos import draw
from tests.ymir.platform.producer import SECOND, Order, produce

IMG_MAN = REPOSITORY / "docker" / "ymir" / "img-man"
FOLDERS = {2: "det", 3: "semantic-seg", 4: "instance-seg", 50: "multi-modal"}
TASKS = ("training", "mining", "infer")
RESERVED = {"task_id", "class_names", "gpu_count", "gpu_id", "pretrained_model_params", "model_params_path",
            "object_type", "run_infer", "run_mining"}  # fmt: skip


def step_values(word):
    _, found = stages(REPOSITORY / "Dockerfile")
    return [step.value for step in found["ymir"].steps if step.word == word]


def template(folder, task):
    return yaml.safe_load((folder / f"{task}-template.yaml").read_text())


def test_the_stage_is_what_ymir_starts():
    assert step_values("CMD") == ['["bash", "/usr/bin/start.sh"]']
    assert step_values("ENTRYPOINT") == ["[]"], "NVIDIA's would print before the files that YMIR reads"
    assert "YMIR=1.1.0" in step_values("ARG")
    assert "YMIR_VERSION=${YMIR}" in step_values("ENV")
    assert step_values("WORKDIR") == ["/app"]
    assert step_values("USER") == [], "YMIR chooses the user"


def test_mirrors_are_empty_unless_they_are_given():
    """Of the base, which both use, and of the stage."""
    given = [step.value for step in steps_of(REPOSITORY / "Dockerfile", "ymir") if step.word == "ARG"]
    assert {"APT_MIRROR", "PIP_INDEX_URL", "PIP_TRUSTED_HOST", "WEIGHTS_URL"} <= set(given)


def test_the_base_has_a_cuda_that_new_cards_need():
    """FAQ: images must have CUDA 11.1 or newer; NVIDIA's releases from 20.10 on do."""
    arguments, _ = stages(REPOSITORY / "Dockerfile")
    release = re.fullmatch(r"nvcr\.io/nvidia/pytorch:(\d\d)\.(\d\d)-py3", arguments["FROM_IMAGE_NAME"])
    assert (int(release[1]), int(release[2])) >= (20, 10)


def test_the_manifest():
    manifest = yaml.safe_load((IMG_MAN / "manifest.yaml").read_text())
    assert manifest == {"object_type": [2, 4], "enable_livecode": True}
    for kind in manifest["object_type"]:
        assert all((IMG_MAN / FOLDERS[kind] / f"{task}-template.yaml").is_file() for task in TASKS)
    assert (IMG_MAN / "readme.md").read_text().startswith("# ")


@pytest.mark.parametrize("name", ["", "det", "instance-seg"])
def test_templates_are_flat_and_are_understood(name):
    for task in TASKS:
        content = template(IMG_MAN / name, task)
        assert not {type(value) for value in content.values()} & {dict, list}, "one level"
        assert not RESERVED & set(content), "the platform's own keys"
        settings = JobSettings(content)
        assert settings.batch_size == 2
        assert settings.options == []
        assert re.fullmatch(r"\d+G", content["shm_size"])
        if task == "training":
            config = yaml.safe_load((REPOSITORY / content["config_file"]).read_text())
            assert bool(config["MODEL"].get("MASK_ON")) == (name == "instance-seg")
            assert content["export_format"] == ("seg-coco:raw" if name == "instance-seg" else "ark:raw")


def test_an_old_ymir_reads_the_templates_for_boxes():
    for task in TASKS:
        assert template(IMG_MAN, task) == template(IMG_MAN / "det", task)


def test_names_of_the_platform_s_documents_are_in_the_page():
    text = (REPOSITORY / "docs" / "ymir.md").read_text()
    for key in {key for path in IMG_MAN.rglob("*-template.yaml") for key in yaml.safe_load(path.read_text())}:
        assert f"`{key}`" in text, f"docs/ymir.md does not explain {key}"
    assert re.search(r"docker build -t ymir-executor/\S+:cu\d+-tmi -f Dockerfile --target ymir", text)
    assert re.search(r"/ymir-executor:ymir[\d.]+-maskrcnn-cu\d{3}-tmi", text)


def move_into(machine, job):
    """The folders of a task as /in and /out of the machine, with these paths in its files."""
    for path in job.source.rglob("*"):
        if path.suffix in (".yaml", ".tsv", ".xml"):
            path.write_text(path.read_text().replace(str(job.folder), ""))
    for name in ("in", "out"):
        shutil.move(job.folder / name, machine.upper / name)
    for path in [machine.upper / "out", *(machine.upper / "out").rglob("*")]:
        os.chown(path, 12345, 12345)


@pytest.mark.slow
@pytest.mark.extras
@pytest.mark.timeout(3000)
def test_every_run_line_runs_here_and_a_task_ends_well(tmp_path):
    folder = tmp_path / "machine"  # it has gigabytes, which pytest would keep
    folder.mkdir()
    machine = Machine(folder, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    try:
        steps = steps_of(REPOSITORY / "Dockerfile", "ymir")
        machine.build(steps, {"FORCE_CUDA": "0", "WEIGHTS": "0", "YMIR": "2.0.0"})
        shown = machine.run("cat /img-man/det/training-template.yaml", "12345:12345")
        assert yaml.safe_load(shown.stdout) == template(IMG_MAN / "det", "training")
        photos = draw(10)
        order = Order(["training"], SECOND, photos[:6], photos[6:], settings=small.training(2), object_type=2)
        job = produce(tmp_path / "job", order)
        move_into(machine, job)
        command = step_values("CMD")[0]
        done = machine.run(" ".join(yaml.safe_load(command)), "12345:12345")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        target = machine.upper / "out"
        record = monitor.parse((target / "monitor.txt").read_text())
        assert (record.state, record.percent, record.code) == (2, 1.0, 0)
        models = target / "models"
        consumer.check_stages(yaml.safe_load((models / "result.yaml").read_text()), models, "mAP")
        written = {path.relative_to(machine.upper).parts[0] for path in machine.upper.rglob("*")
                   if path.is_file() and not path.is_symlink() and path.stat().st_uid == 12345}  # fmt: skip
        assert written <= {"out", "tmp"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_script_hands_over_to_the_starter():
    script = (REPOSITORY / "docker" / "ymir" / "start.sh").read_text()
    assert "cd /app\n" in script
    assert re.search(r"^exec ", script, flags=re.MULTILINE), "signals reach the starter"
    assert "tools/ymir_start.py" in script
