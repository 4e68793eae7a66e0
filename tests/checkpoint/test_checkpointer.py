"""Checkpoints: what they hold, that a kill or a full disk loses nothing, and what is refused."""

from __future__ import annotations

import datetime
import logging
import os
import pickle
import random

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint import files
from maskrcnn_benchmark.solver import WarmupMultiStepLR
from maskrcnn_benchmark.utils.checkpoint import Checkpointer, DetectronCheckpointer


def make_model(classes=4, seed=0):
    torch.manual_seed(seed)
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 5))
    model.predictor = nn.Module()
    model.predictor.cls_score = nn.Linear(5, classes)
    return model


def make_run(folder, *, seed=0, classes=4):
    model = make_model(classes, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = WarmupMultiStepLR(optimizer, (3,), warmup_iters=2)
    return DetectronCheckpointer(CfgNode({"SEED": 7}), model, optimizer, scheduler, str(folder), save_to_disk=True)


def take_step(run):
    sum(parameter.square().sum() for parameter in run.model.parameters()).backward()
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.scheduler.step()


def weights(run):
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def assert_same(left, right):
    assert list(left) == list(right)
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.fixture
def warnings(monkeypatch):
    """Messages of level warning and above, wherever the loggers send them."""
    found = []
    logger = logging.getLogger("maskrcnn_benchmark.checkpoint")
    monkeypatch.setattr(logger, "warning", lambda message, *args: found.append(message % args))
    return found


def test_published_names_and_keys(tmp_path):
    run = make_run(tmp_path)
    run.save("model_0002500", iteration=2500, scaler={"scale": 2.0})
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0002500.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "model_0002500.pth")
    data = torch.load(tmp_path / "model_0002500.pth", weights_only=True)
    assert set(data) == {
        "model", "optimizer", "scheduler", "iteration", "scaler", "world_size", "config", "format_version"
    }  # fmt: skip
    assert data["config"] == "SEED: 7\n"
    assert data["world_size"] == 1


def test_everything_comes_back(tmp_path):
    run = make_run(tmp_path)
    for _ in range(3):
        take_step(run)
    run.save("model_0000003", iteration=3, scaler={})
    other = make_run(tmp_path, seed=1)
    assert other.load("ignored.pth") == {"iteration": 3, "scaler": {}}
    for _ in range(2):
        take_step(run)
        take_step(other)
    assert_same(weights(run), weights(other))
    assert run.optimizer.param_groups[0]["lr"] == other.optimizer.param_groups[0]["lr"]


def test_published_interface(tmp_path):
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    elsewhere.mkdir()
    trained = make_model(seed=1)
    Checkpointer(trained, save_dir=str(folder), save_to_disk=True).save("checkpoint_file")
    same = Checkpointer(make_model(), save_dir=str(folder))
    assert same.has_checkpoint()
    assert same.get_checkpoint_file() == str(folder / "checkpoint_file.pth")
    same.load()
    other = Checkpointer(make_model(), save_dir=str(elsewhere))
    assert not other.has_checkpoint()
    assert other.get_checkpoint_file() == ""
    assert other.load() == {}
    other.load(str(folder / "checkpoint_file.pth"))
    for loaded in (same, other):
        assert_same(weights(loaded), trained.state_dict())


def test_only_the_writing_process_writes(tmp_path):
    Checkpointer(make_model(), save_dir=str(tmp_path), save_to_disk=False).save("model_final")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("moment", ["while writing", "before the rename"])
def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch, moment):
    run = make_run(tmp_path)
    run.save("model_final", iteration=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        if moment == "while writing":
            args[1].write(b"half a file")
        raise OSError(28, "No space left on device")

    if moment == "while writing":
        monkeypatch.setattr(files.torch, "save", fail)
    else:
        monkeypatch.setattr(files.os, "replace", fail)
    take_step(run)
    with pytest.raises(OSError, match="No space left"):
        run.save("model_final", iteration=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_truncated_newest_is_named_and_the_one_before_is_taken(tmp_path, warnings):
    run = make_run(tmp_path)
    run.save("model_0000001", iteration=1)
    first = weights(run)
    take_step(run)
    run.save("model_0000002", iteration=2)
    newest = tmp_path / "model_0000002.pth"
    newest.write_bytes(newest.read_bytes()[:-200])
    other = make_run(tmp_path, seed=1)
    assert other.load() == {"iteration": 1}
    assert_same(weights(other), first)
    assert "model_0000002.pth is truncated" in warnings[0]
    assert "model_0000001.pth" in warnings[1]
    (tmp_path / "model_0000001.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read: .*model_0000002\.pth"):
        other.load()


def test_a_moved_folder_is_found(tmp_path):
    (tmp_path / "before").mkdir()
    make_run(tmp_path / "before").save("model_final", iteration=4)
    (tmp_path / "before").rename(tmp_path / "after")
    assert make_run(tmp_path / "after", seed=1).load() == {"iteration": 4}


class Payload:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_pickled_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": make_model().state_dict(), "extra": Payload()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(ValueError, match=name):
            Checkpointer(make_model()).load(str(tmp_path / name))
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_of_another_model_changes_nothing(tmp_path):
    make_run(tmp_path, classes=9).save("model_final", iteration=4)
    run = make_run(tmp_path)
    before = weights(run)
    with pytest.raises(ValueError, match=r"another model: predictor\.cls_score\.weight has shape \(9, 5\)") as error:
        run.load()
    assert "\n" not in str(error.value)
    assert_same(weights(run), before)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    monkeypatch.setattr("maskrcnn_benchmark.checkpoint.checkpointer.FORMAT_VERSION", 2)
    run.save("model_final")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format version 2"):
        run.load()


def test_a_published_checkpoint_loads(tmp_path):
    """The layout of the harness: names with module., one optimiser group a parameter, the scheduler's whole dict."""
    source = make_model(seed=1)
    optimizer = torch.optim.SGD([{"params": [p]} for p in source.parameters()], lr=0.1, momentum=0.9)
    sum((index * parameter).sum() for index, parameter in enumerate(source.parameters())).backward()
    optimizer.step()
    data = {
        "model": {f"module.{name}": tensor for name, tensor in source.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "scheduler": {"last_epoch": 2, "milestones": (9,), "base_lrs": [0.1] * 6, "warmup_method": "linear"},
        "iteration": 2,
    }
    torch.save(data, tmp_path / "model_0000002.pth")
    (tmp_path / "last_checkpoint").write_text("/results/model_0000002.pth")
    run = make_run(tmp_path)
    assert run.load() == {"iteration": 2}
    assert_same(weights(run), source.state_dict())
    for index, parameter in enumerate(run.model.parameters()):
        assert (run.optimizer.state[parameter]["momentum_buffer"] == index).all()
    assert run.scheduler.last_epoch == 2


def test_weights_of_other_classes_leave_the_heads_out(tmp_path):
    source = make_model(classes=81, seed=1)
    state = {**source.state_dict(), "unknown.weight": torch.zeros(1)}
    del state["backbone.1.bias"]
    torch.save(state, tmp_path / "coco.pth")
    run = make_run(tmp_path)
    before = weights(run)
    report = run.load_weights(str(tmp_path / "coco.pth"))
    after = weights(run)
    assert report.loaded == ["backbone.0.weight", "backbone.0.bias", "backbone.1.weight"]
    assert report.left_out == ["predictor.cls_score.weight", "predictor.cls_score.bias"]
    assert report.missing == ["backbone.1.bias"]
    assert report.unused == ["unknown.weight"]
    for name in report.loaded:
        assert torch.equal(after[name], state[name])
    for name in (*report.left_out, *report.missing):
        assert torch.equal(after[name], before[name])
    summary = report.summary()
    assert "3 tensors loaded, 2 left out, 1 missing" in summary
    assert "predictor.cls_score.weight" in summary
    with pytest.raises(ValueError, match=r"coco\.pth does not fit this model: predictor\.cls_score"):
        run.load_weights(str(tmp_path / "coco.pth"), strict=True)


def test_weights_only_leave_the_schedule_at_its_start(tmp_path):
    run = make_run(tmp_path)
    take_step(run)
    run.save("model_final", iteration=1)
    (tmp_path / "last_checkpoint").unlink()
    other = make_run(tmp_path, seed=1)
    other.load_weights(str(tmp_path / "model_final.pth"), strict=True)
    assert_same(weights(other), weights(run))
    assert other.scheduler.last_epoch == 0
    assert not other.optimizer.state


def test_weights_of_another_backbone_change_nothing(tmp_path):
    torch.save({"backbone.0.weight": torch.zeros(8, 3), "backbone.1.weight": torch.zeros(5, 5)}, tmp_path / "wide.pth")
    run = make_run(tmp_path)
    before = weights(run)
    with pytest.raises(ValueError, match=r"wide\.pth does not fit this model: backbone\.0\.weight \(8, 3\)"):
        run.load_weights(str(tmp_path / "wide.pth"))
    assert_same(weights(run), before)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"something": torch.zeros(1)}, "none of its names"),
        ({"model": 3}, "holds no weights"),
        ([1, 2], "not a checkpoint"),
    ],
)
def test_files_without_fitting_weights(tmp_path, content, words):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=words):
        make_run(tmp_path).load_weights(str(tmp_path / "file.pth"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist; .*MODEL\.WEIGHT ''"):
        make_run(tmp_path).load_weights("nowhere.pth")


def test_a_refusal_of_code_names_it_and_the_remedy(tmp_path):
    torch.save({"model": make_model().state_dict(), "when": datetime.datetime(2019, 1, 1)}, tmp_path / "old.pth")
    with pytest.raises(
        ValueError, match=r"old\.pth is refused: it asks for datetime\.datetime, .*torch\.save"
    ) as error:
        make_run(tmp_path).load_weights(str(tmp_path / "old.pth"))
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_damaged_anywhere_is_read_or_refused(tmp_path, zipped):
    path = tmp_path / "model.pth"
    data = {"model": make_model().state_dict(), "iteration": 3, "scaler": {"scale": 2.0}}
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    generator = random.Random(5)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(content)
        damaged[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(bytes(damaged))
        try:
            files.read_weights(str(path))
            outcomes.add("read")
        except ValueError as error:
            outcomes.add("named" if str(path) in str(error) and "\n" not in str(error) else str(error))
    assert outcomes == {"read", "named"}
