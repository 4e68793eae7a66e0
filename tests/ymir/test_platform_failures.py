"""Tasks that cannot succeed: YMIR is told why, by code and sentence, and the exit status is not 0."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import yaml

from tests.ymir import small
from tests.ymir.platform import consumer, runner
from tests.ymir.platform.backend import Platform
from tests.ymir.platform.photos import draw
from tests.ymir.platform.producer import FIRST, SECOND, Order
from tests.ymir.platform.storage import StoredModel

CONFIG, DATASET, FORMAT, WEIGHTS, OBJECT_TYPE = 300001, 300002, 300003, 300004, 300005
NO_GPU, NAN, NETWORK, OTHER = 300102, 300201, 300301, 160004


def prepare(folder, tasks=("training",), settings=None, **more):
    photos = draw(8, seed=5)
    if "training" in tasks:
        more = {"train": photos[:5], "val": photos[5:], "export_format": "ark:raw"} | more
        return Platform(folder).prepare(Order(tasks, settings=settings or small.training(), **more))
    more = {"candidates": photos[:4]} | more
    return Platform(folder).prepare(Order(tasks, settings=settings or small.mining(), **more))


def check(run, code, *words):
    """The task failed with this code; each of the words is in the sentence, which the log ends with too."""
    assert run.status != 0, run.log[-2000:]
    assert (run.last.state, run.last.code) == (4, code), f"{run.last}\n{run.log[-3000:]}"
    for word in words:
        assert word in run.last.message, f"{word!r} is not in {run.last.message!r}"
    shown = "\n".join(run.log.splitlines()[-5:])
    assert run.last.message in shown, f"YMIR shows {shown!r}"


def first_file(job, pattern):
    return sorted(path for path in job.source.glob(pattern) if path.is_file())[0]


def wrong_class(job):
    path = Path((job.source / "train-index.tsv").read_text().split("\n")[0].split("\t")[1])
    path.write_text("0, 10, 5, 29, 16, -1.0, 0.0\n2, 1, 1, 9, 9\n")
    return FORMAT, [path.name, "2"]


def missing_image(job):
    path = first_file(job, "assets/*/*")
    path.unlink()
    return DATASET, [path.name]


def missing_annotation(job):
    path = first_file(job, "annotations/*/*")
    path.unlink()
    return DATASET, [path.name]


def missing_index(job):
    (job.source / "train-index.tsv").unlink()
    return DATASET, ["train-index.tsv"]


def broken_image(job):
    path = first_file(job, "assets/*/*")
    path.write_bytes(path.read_bytes()[:40])
    return FORMAT, [path.name]


def broken_annotation(job):
    path = first_file(job, "annotations/*/*")
    path.write_text("0, ten, 5, 29, 16\n")
    return FORMAT, [path.name, "ten"]


def without_classes(job):
    return change(job, "class_names", []), ["class_names"]


def class_that_stands_twice(job):
    return change(job, "class_names", ["a", "a"]), ["'a'"]


def word_for_a_number(job):
    return change(job, "max_iter", "many"), ["max_iter", "many"]


def option_that_is_none(job):
    return change(job, "cfg_options", "SOLVER.MAX_ITERS 3"), ["SOLVER.MAX_ITERS"]


def config_that_is_not_there(job):
    return change(job, "config_file", "configs/none.yaml"), ["configs/none.yaml"]


def unknown_format(job):
    return change(job, "export_format", "seg-mask:raw"), ["seg-mask"]


def semantic_segmentation(job):
    change(job, "object_type", 3)
    return OBJECT_TYPE, ["3", "semantic"]


def change(job, key, value):
    path = job.source / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config[key] = value
    path.write_text(yaml.safe_dump(config))
    return CONFIG


EARLY = [wrong_class, missing_image, missing_annotation, missing_index, broken_annotation, without_classes,
         class_that_stands_twice, word_for_a_number, option_that_is_none, config_that_is_not_there, unknown_format,
         semantic_segmentation]  # fmt: skip
IN_CORE = (wrong_class, missing_image)


@pytest.mark.parametrize(
    "damage", [pytest.param(each, marks=[] if each in IN_CORE else pytest.mark.slow) for each in EARLY]
)
def test_training_does_not_begin(tmp_path, damage):
    job = prepare(tmp_path)
    code, words = damage(job)
    run = runner.run(job)
    check(run, code, *words)
    assert not (job.target / "models" / "result.yaml").exists()


@pytest.mark.slow
def test_an_image_that_cannot_be_decoded(tmp_path):
    job = prepare(tmp_path)
    code, words = broken_image(job)
    check(runner.run(job), code, *words)


def test_an_algorithm_that_nobody_knows(tmp_path):
    job = prepare(tmp_path, ["mining"], small.mining(mining_algorithm="guessing"))
    check(runner.run(job), CONFIG, "guessing", "entropy", "aldd")


@pytest.mark.slow
def test_no_model_to_infer_with(tmp_path):
    check(runner.run(prepare(tmp_path, ["infer"])), WEIGHTS, "model_params_path")


@pytest.fixture
def broken_model(tmp_path):
    """A package whose weights are no weights."""
    return package_of(tmp_path, {"model_0000002.pth": b"no weights", "config.yaml": b"MODEL: {}\n"})


def package_of(folder, contents):
    known = {"best_stage_name": "best", "stages": {"best": {"files": list(contents)}}}
    path = folder / "package.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {**contents, "ymir-info.yaml": yaml.safe_dump(known).encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return StoredModel(path)


@pytest.mark.parametrize("tasks", [["mining", "infer"], pytest.param(["training"], marks=pytest.mark.slow)])
def test_weights_that_are_broken(tmp_path, broken_model, tasks):
    check(runner.run(prepare(tmp_path, tasks, model=broken_model)), WEIGHTS, "model_0000002.pth")


@pytest.mark.slow
def test_a_loss_that_is_no_number(tmp_path):
    """After the checkpoint of iteration 2, which YMIR keeps."""
    settings = small.training(60, learning_rate=1e18, val_interval=1)
    job = prepare(tmp_path, settings=settings)
    run = runner.run(job)
    check(run, NAN)
    assert 0 < run.records[-2].percent < 1 or len(run.records) < 3


@pytest.mark.slow
def test_a_gpu_that_is_not_there(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has the GPU that is asked for")
    check(runner.run(prepare(tmp_path, gpu_count=1)), NO_GPU, "gpu")


def test_a_full_disk(tmp_path):
    """/out takes the data, but no checkpoint: the sentence names the place, and what YMIR polls is whole."""
    if not runner.can_be_a_stranger():
        pytest.skip("a small disk needs root, unshare and mount")
    job = prepare(tmp_path)
    run = runner.run(job, room="300k")
    check(run, OTHER, str(job.target))


@pytest.mark.slow
def test_a_killed_training_leaves_its_checkpoints(tmp_path):
    """Stopped between two checkpoints: the first is listed and taken; the same folders then finish the task."""
    platform = Platform(tmp_path)
    photos = draw(8, seed=5)
    order = Order(["training"], SECOND, photos[:5], photos[5:], settings=small.training(40, val_interval=10),
                  export_format="ark:raw", object_type=2)  # fmt: skip
    job = platform.prepare(order)

    def stop(record):
        has_result = (job.target / "models" / "result.yaml").exists()
        return signal.SIGTERM if has_result and record.percent >= 0.4 else None

    run = runner.run(job, interrupt=stop)
    outcome = platform.finish(run)
    assert outcome.code == OTHER
    assert run.last.state == 4
    assert outcome.model is not None
    assert "iter_0000010" in outcome.result["model_stages"]
    again = platform.run(job)
    assert again.code == 0, again.run.log[-3000:]
    assert "iter_0000040" in again.result["model_stages"]


@pytest.mark.slow
def test_the_same_folders_once_more(tmp_path):
    """Start.sh may be run again by hand, which is how a training is looked into."""
    platform = Platform(tmp_path)
    job = prepare(tmp_path / "once", object_type=2)
    first = platform.run(job)
    second = platform.run(job)
    assert (first.code, second.code) == (0, 0)
    assert first.result["best_stage_name"] == second.result["best_stage_name"]
    assert consumer.check_tensorboard(job)


@pytest.mark.slow
def test_the_first_generation_reads_two_lines(tmp_path):
    """YMIR 1.1 knows no codes: four columns, and the sentence below them."""
    job = prepare(tmp_path, generation=FIRST)
    missing_image(job)
    run = runner.run(job)
    assert run.status != 0
    assert (run.last.state, run.last.code) == (4, None)
    assert "does not exist" in run.last.stack[0]


def test_without_an_environment_there_is_a_sentence(tmp_path):
    """Started by hand in the wrong place."""
    done = subprocess.run(
        [sys.executable, "tools/ymir_start.py"], env=os.environ | {"YMIR_ENV_FILE": str(tmp_path / "none.yaml")},
        cwd=runner.REPOSITORY, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "none.yaml" in done.stderr
    assert "Traceback" not in done.stderr
