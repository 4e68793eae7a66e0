"""Whole tasks through the stand-in for YMIR: train, then mine and infer with what came out, then finetune it."""

from __future__ import annotations

import io
import re
import tarfile

import numpy as np
import pytest
import torch
import yaml

from tests.ymir import small
from tests.ymir.platform.backend import Platform
from tests.ymir.platform.photos import CLASSES, draw, penn_fudan
from tests.ymir.platform.producer import FIRST, MIDDLE, SECOND, Order

GENERATIONS = {each.name: each for each in (FIRST, MIDDLE, SECOND)}


def weights_of(model):
    """The tensors of the one .pth file of a stored model's best stage."""
    (name,) = (each for each in model.files() if each.endswith(".pth"))
    with tarfile.open(model.path) as archive:
        return torch.load(io.BytesIO(archive.extractfile(name).read()), weights_only=True)["model"]


def barely_training():
    """Settings under which a model stays as it began; random weights would be others than those of the first run."""
    return small.training(1, learning_rate=1e-9, val_interval=1, cfg_options=small.cfg_options(SEED=7))


def largest_change(before, after):
    """Of a trained value; batch norm's statistics move at any learning rate."""
    assert before.keys() == after.keys()
    trained = [name for name in before if "running_" not in name and "num_batches" not in name]
    return max(float((before[name] - after[name]).abs().max()) for name in trained)


class Journey:
    """Tasks of one project.

    Args:
        folder: of the workplace.
        generation: of YMIR.
        object_type, export_format: of the project.
        photos: the first ones train, four are for validation, the rest is mined.
    """

    def __init__(self, folder, generation, photos, *, object_type=None, export_format="", class_names=CLASSES):
        self.platform = Platform(folder)
        self.photos = photos
        self.common = dict(generation=generation, object_type=object_type, class_names=class_names)
        self.export_format = export_format

    def train(self, settings=None, options=(), **more):
        train = self.photos[: len(self.photos) // 2]
        order = Order(["training"], train=train, val=self.photos[len(train) : len(train) + 4], linked_assets=True,
                      export_format=self.export_format, settings=settings or small.training(),
                      **self.common, **more)  # fmt: skip
        return self.platform.execute(order, **dict(options))

    def mine(self, model, settings=None, tasks=("mining", "infer"), number=None, options=()):
        candidates = self.photos[len(self.photos) // 2 + 4 :][:number]
        order = Order(tasks, candidates=candidates, model=model, settings=settings or small.mining(), **self.common)
        # While the network is loaded a phase is half done, long enough to be seen.
        halves = {"PREPROCESS_WEIGHT": "0.5", "TASK_WEIGHT": "0.5", "POSTPROCESS_WEIGHT": "0"}
        return self.platform.execute(order, **(halves | dict(options)))


def check_both_phases(outcome):
    """Mining takes the first half of the progress, inference the second."""
    seen = [record.percent for record in outcome.run.records]
    assert any(0 < percent < 0.5 for percent in seen), seen
    assert any(0.5 <= percent < 1 for percent in seen), seen
    assert len(outcome.mined) == len(outcome.inferred)


def test_the_first_generation(tmp_path):
    """YMIR 1.1: boxes as text, models flat, four columns; the options reach the training."""
    journey = Journey(tmp_path, FIRST, draw(16))
    trained = journey.train()
    assert trained.code == 0, trained.run.log[-3000:]
    assert all(record.code is None for record in trained.run.records)
    assert "config.yaml" in trained.result["model"]
    assert any(tag for tag in trained.scalars if "loss" in tag)
    mined = journey.mine(trained.model)
    assert mined.code == 0, mined.run.log[-3000:]
    check_both_phases(mined)


def test_the_second_generation(tmp_path):
    """YMIR 2: masks as COCO, stages; a finetuned model begins where the first one ended."""
    journey = Journey(tmp_path, SECOND, draw(16), object_type=4, export_format="seg-coco:raw")
    trained = journey.train()
    assert trained.code == 0, trained.run.log[-3000:]
    assert trained.run.records[0].percent == 0
    assert set(trained.result["model_stages"]) <= {"iter_0000002", "iter_0000004"}
    mined = journey.mine(trained.model)
    assert mined.code == 0, mined.run.log[-3000:]
    check_both_phases(mined)
    assert all(each["mask"] is not None for entries in mined.inferred.values() for each in entries)
    tuned = journey.train(barely_training(), model=trained.model)
    assert tuned.code == 0, tuned.run.log[-3000:]
    assert largest_change(weights_of(trained.model), weights_of(tuned.model)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "object_type", "export_format"), [
    ("ymir1.1", None, "ark:raw"), ("ymir1.3", None, ""), ("ymir1.3", None, "det-voc:raw"), ("ymir2", 2, ""),
    ("ymir2", 2, "ark:raw"), ("ymir2", 2, "coco:raw"), ("ymir2", 4, "coco:raw"), ("ymir2", None, "voc:raw"),
])  # fmt: skip
def test_every_format(tmp_path, name, object_type, export_format):
    journey = Journey(tmp_path, GENERATIONS[name], draw(16, seed=3), object_type=object_type,
                      export_format=export_format)  # fmt: skip
    trained = journey.train()
    assert trained.code == 0, trained.run.log[-3000:]
    for tasks in (["mining"], ["infer"]):
        outcome = journey.mine(trained.model, tasks=tasks)
        assert outcome.code == 0, outcome.run.log[-3000:]
    tuned = journey.train(barely_training(), model=trained.model)
    assert largest_change(weights_of(trained.model), weights_of(tuned.model)) < 1e-4


@pytest.mark.slow
def test_every_checkpoint_counts(tmp_path):
    """Stages beyond those to keep go, the best one never does; patterns choose files; options win."""
    journey = Journey(tmp_path, SECOND, draw(16), object_type=4, export_format="seg-coco:raw")
    options = small.cfg_options(SOLVER__MAX_ITER=26)
    trained = journey.train(small.training(6, max_keep_checkpoints=-1, val_interval=2, cfg_options=options))
    assert trained.code == 0, trained.run.log[-3000:]
    stages = trained.result["model_stages"]
    assert len(stages) == 11, "13 were evaluated, the protocol allows 11"
    assert "iter_0000026" in stages, "MAX_ITER of the options, not max_iter"
    chosen = journey.train(small.training(4, ymir_saved_file_patterns=r"\.pth$, nothing"))
    assert {name for stage in chosen.result["model_stages"].values() for name in stage["files"]} <= {
        "model_0000002.pth", "model_0000004.pth", "config.yaml"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [5, 1])
def test_two_processes_share_the_work(tmp_path, number):
    """Without a GPU, YMIR itself asks for one process; one of the two may have nothing to do."""
    journey = Journey(tmp_path, SECOND, draw(18), object_type=4, export_format="seg-coco:raw")
    both = {"YMIR_CPU_PROCESSES": "2"}
    trained = journey.train(small.training(2), both)
    assert trained.code == 0, trained.run.log[-3000:]
    settings = small.mining(batch_size_per_gpu=1)  # what else is in a batch shows in the last bits
    alone, together = (journey.mine(trained.model, settings, number=number, options=each) for each in ({}, both))
    assert together.code == 0, together.run.log[-3000:]
    assert [row[1] for row in together.mined] == [row[1] for row in alone.mined]
    assert comparable(together.inferred) == comparable(alone.inferred)


def comparable(inferred):
    return {
        name: [(each["class_name"], each["score"], each["box"], each["mask"].tobytes()) for each in entries]
        for name, entries in inferred.items()
    }


@pytest.mark.slow
def test_weights_of_the_image(tmp_path):
    """A training without a model begins with the file of the image that is named like the config."""
    journey = Journey(tmp_path, SECOND, draw(16), object_type=2, export_format="ark:raw")
    before = weights_of(journey.train(small.training(1, val_interval=1)).model)
    local = tmp_path / "sandbox" / "weights" / "folder"
    local.mkdir(parents=True)
    torch.save({"model": before}, local / "mask_rcnn_R_18_FPN_shapes.pth")
    options = {"YMIR_WEIGHTS_DIR": str(local.parent), "shown": [local.parent]}
    tuned = journey.train(barely_training(), options)
    assert tuned.code == 0, tuned.run.log[-3000:]
    assert largest_change(before, weights_of(tuned.model)) < 1e-4
    elsewhere = options | {"YMIR_WEIGHTS_DIR": str(tmp_path / "none")}
    anew = journey.train(barely_training(), elsewhere)
    assert largest_change(before, weights_of(anew.model)) > 1e-2


@pytest.mark.slow
@pytest.mark.extras
def test_onnx_beside_the_weights(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    journey = Journey(tmp_path, SECOND, draw(16), object_type=4, export_format="seg-coco:raw")
    trained = journey.train(small.training(2, export_onnx="true"))
    assert trained.code == 0, trained.run.log[-3000:]
    (name,) = (each for each in trained.model.files() if each.endswith(".onnx"))
    with tarfile.open(trained.model.path) as archive:
        content = archive.extractfile(name).read()
    onnx.checker.check_model(onnx.load_from_string(content))
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.get_inputs()
    assert journey.mine(trained.model).code == 0, "a file more does not disturb"


# People in photographs; the network starts from random weights, so these are about files, not about figures.


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("object_type", "export_format"), [(2, "voc:raw"), (4, "seg-coco:raw")])
def test_penn_fudan(tmp_path, external_data, object_type, export_format):
    photos = penn_fudan(external_data("PennFudanPed"), 28, longest_side=192)
    journey = Journey(tmp_path, SECOND, photos, object_type=object_type, export_format=export_format,
                      class_names=["pedestrian"])  # fmt: skip
    options = "INPUT.MIN_SIZE_TRAIN 128 INPUT.MAX_SIZE_TRAIN 192 INPUT.MIN_SIZE_TEST 128 INPUT.MAX_SIZE_TEST 192"
    settings = small.training(40, learning_rate=0.02, val_interval=20, cfg_options=f"{options} SOLVER.WARMUP_ITERS 10")
    trained = journey.train(settings)
    assert trained.code == 0, trained.run.log[-3000:]
    losses = trained.scalars[next(tag for tag in trained.scalars if re.search(r"(^|/)loss$", tag))]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    mined = journey.mine(trained.model)
    check_both_phases(mined)
    assert {each["class_name"] for entries in mined.inferred.values() for each in entries} <= {"pedestrian"}
    tuned = journey.train(settings | {"max_iter": 4, "val_interval": 4}, model=trained.model)
    assert tuned.scalars[next(tag for tag in tuned.scalars if re.search(r"(^|/)loss$", tag))][0] < losses[0]


def test_templates_are_what_a_task_gets(repository):
    """Tests set keys that the image's templates have: what YMIR shows to users."""
    folder = repository / "docker" / "ymir" / "img-man"
    shown = set()
    for path in folder.rglob("*-template.yaml"):
        shown |= set(yaml.safe_load(path.read_text()))
    assert set(small.training()) | set(small.mining()) <= shown
