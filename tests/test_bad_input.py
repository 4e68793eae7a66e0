"""A user's mistakes: each ends in one sentence on stderr and status 2, before anything that was there is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.apps.tiny_run import tiny_run

__all__ = ["tiny_run"]  # a fixture


def fails(capsys, call):
    """The sentence that a call ends with."""
    with pytest.raises(SystemExit) as stop:
        call()
    assert stop.value.code == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert "  " not in lines[0]
    return lines[0].removeprefix("error: ")


@pytest.fixture
def failing(tiny_run, capsys):
    """``failing(keys=..., flags=..., config=..., tool=...)``: the sentence of a call with these changes."""

    def run(*flags, tool="train", **keywords):
        return fails(capsys, lambda: getattr(tiny_run, tool)(*flags, **keywords))

    return run


@pytest.fixture
def trained(tiny_run):
    """A run of four iterations, and a function that asserts that its checkpoints are as they were."""
    tiny_run.train("--skip-test")
    before = {path.name: path.read_bytes() for path in tiny_run.output.glob("*.pth")}

    def untouched(*, but=()):
        for name, content in before.items():
            assert name in but or (tiny_run.output / name).read_bytes() == content, name

    return untouched


def edit_annotations(tiny_run, change):
    data = json.loads(tiny_run.data.ann_file.read_text())
    change(data)
    tiny_run.data.ann_file.write_text(json.dumps(data))


def test_a_misspelt_key(failing, tiny_run):
    message = failing(keys={"SOLVER.BASE_LRR": 0.1})
    assert "SOLVER.BASE_LRR" in message
    assert "SOLVER.BASE_LR" in message.replace("SOLVER.BASE_LRR", "")
    assert not tiny_run.output.exists()


def test_a_misspelt_key_in_a_file(failing, tiny_run):
    config = tiny_run.folder / "mine.yaml"
    config.write_text("SOLVER:\n  MAX_ITERATIONS: 5\n")
    message = failing(config=config)
    assert "SOLVER.MAX_ITERATIONS" in message
    assert str(config) in message
    assert "SOLVER.MAX_ITER" in message.replace("SOLVER.MAX_ITERATIONS", "")


def test_a_wrong_type(failing):
    message = failing(keys={"SOLVER.MAX_ITER": "many"})
    assert "SOLVER.MAX_ITER" in message
    assert "many" in message


def test_an_odd_number_of_words(failing):
    assert "pairs KEY VALUE" in failing("SOLVER.MAX_ITER")


def test_a_missing_config(failing, tiny_run):
    assert "nowhere.yaml" in failing(config=tiny_run.folder / "nowhere.yaml")


def test_an_unknown_data_set(failing):
    message = failing(keys={"DATASETS.TRAIN": "('tiny_tarin',)"})
    assert "tiny_tarin" in message


def test_missing_images(failing, tiny_run):
    for image in tiny_run.data.root.iterdir():
        image.unlink()
    assert str(tiny_run.data.root) in failing()


def test_a_missing_annotation_file(failing, tiny_run):
    tiny_run.data.ann_file.unlink()
    assert str(tiny_run.data.ann_file) in failing()


def test_a_broken_annotation_file(failing, tiny_run):
    text = tiny_run.data.ann_file.read_text()
    tiny_run.data.ann_file.write_text(text[: len(text) // 2])
    assert str(tiny_run.data.ann_file) in failing()


def test_annotations_of_an_unknown_category(failing, tiny_run):
    edit_annotations(tiny_run, lambda data: data["annotations"][0].update(category_id=987654))
    assert "987654" in failing()


def test_annotations_without_images(failing, tiny_run):
    edit_annotations(tiny_run, lambda data: data.pop("images"))
    message = failing()
    assert str(tiny_run.data.ann_file) in message
    assert "images" in message


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_jpeg(failing, tiny_run, workers):
    image = tiny_run.data.root / "image_42.jpg"
    image.write_bytes(image.read_bytes()[:60])
    message = failing(keys={"DATALOADER.NUM_WORKERS": workers})
    assert str(image) in message


def test_a_class_count_that_contradicts_the_data(failing, tiny_run, trained):
    message = failing(keys={"MODEL.ROI_BOX_HEAD.NUM_CLASSES": 81, "OUTPUT_DIR": tiny_run.folder / "other"})
    assert "NUM_CLASSES is 81" in message
    assert "set MODEL.ROI_BOX_HEAD.NUM_CLASSES 4" in message
    trained()


def test_a_batch_that_the_processes_cannot_share(tiny_run, repository):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "tools/train_net.py"]
    done = subprocess.run(
        [sys.executable, *launcher, *tiny_run.command(keys={"SOLVER.IMS_PER_BATCH": 3})],
        cwd=repository,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "SOLVER.IMS_PER_BATCH is 3, which cannot be divided among 2 process" in done.stderr
    assert not tiny_run.output.exists()


def test_an_output_folder_that_cannot_be_made(failing, tiny_run):
    tiny_run.output.write_text("a file stands here")
    message = failing()
    assert str(tiny_run.output) in message
    assert "OUTPUT_DIR" in message
    assert tiny_run.output.read_text() == "a file stands here"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_cannot_be_written(failing, tiny_run):
    tiny_run.output.mkdir(mode=0o500)
    assert "OUTPUT_DIR" in failing()


def test_a_summary_that_cannot_be_written(failing, tiny_run):
    message = failing("--json-summary", str(tiny_run.folder / "absent" / "dllogger.out"))
    assert "--json-summary" in message


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_taken(tiny_run, trained, capsys):
    final = tiny_run.output / "model_final.pth"
    final.write_bytes(final.read_bytes()[:-500])
    (tiny_run.output / "model_0000004.pth").unlink()
    tiny_run.train("--skip-test")
    out = capsys.readouterr().out
    assert f"Skipping checkpoint: {final} is truncated" in out
    assert "Resuming at iteration 2" in out
    assert torch.load(final, weights_only=True)["iteration"] == 4
    trained(but=("model_final.pth", "model_0000004.pth"))


def test_only_truncated_checkpoints(failing, tiny_run, trained):
    for path in tiny_run.output.glob("*.pth"):
        path.write_bytes(path.read_bytes()[:1000])
    message = failing()
    assert str(tiny_run.output / "model_final.pth") in message
    assert "can be read" in message


@pytest.mark.parametrize("tool", ["train", "test"])
def test_a_checkpoint_of_another_model(failing, tiny_run, trained, tool):
    message = failing(keys={"MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": 48}, tool=tool)
    assert "checkpoint of another model" in message
    assert "roi_heads.box.feature_extractor.fc6.weight" in message
    trained()


def test_weights_of_another_model(failing, tiny_run, trained):
    keys = {
        "MODEL.WEIGHT": tiny_run.output / "model_final.pth",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 12,
        "OUTPUT_DIR": tiny_run.folder / "other",
    }
    message = failing(keys=keys)
    assert "model_final.pth does not fit this model" in message
    assert "backbone.body.stem.conv1.weight" in message
    trained()


@pytest.mark.parametrize("weight", ["catalog://ImageNetPretrained/MSRA/R-51", "R-50.pkl", "nowhere.pth"])
def test_weights_that_are_not_there(failing, weight):
    message = failing(keys={"MODEL.WEIGHT": weight})
    assert weight.removeprefix("catalog://") in message


def test_cuda_asked_for_and_absent(failing, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = failing(keys={"MODEL.DEVICE": "cuda"})
    assert "MODEL.DEVICE cuda was asked for" in message
    assert "set MODEL.DEVICE cpu" in message


@pytest.mark.parametrize("device", ["gpu", "meta"])
def test_an_unknown_device(failing, device):
    message = failing(keys={"MODEL.DEVICE": device})
    assert "MODEL.DEVICE" in message
    assert device in message


def test_an_unknown_number_format(failing):
    message = failing(keys={"DTYPE": "float8"})
    assert "DTYPE" in message
    assert "float8" in message


def test_a_rate_that_makes_the_losses_explode(failing, tiny_run, trained):
    keys = {"SOLVER.BASE_LR": 1e30, "SOLVER.MAX_ITER": 8, "SOLVER.STEPS": "(100,)", "SOLVER.LOG_PERIOD": 1}
    message = failing("--skip-test", keys=keys)
    assert "finite" in message or "at iteration" in message
    trained()
    # The run goes on with a better rate from where it was.
    tiny_run.train("--skip-test", keys={"SOLVER.MAX_ITER": 5})
    assert torch.load(tiny_run.output / "model_final.pth", weights_only=True)["iteration"] == 5


def test_a_backbone_that_does_not_fit(failing):
    assert "MODEL.RPN.USE_FPN must be False" in failing(keys={"MODEL.BACKBONE.CONV_BODY": "R-50-C4"})


def test_the_tool_itself_exits_with_status_2(tiny_run, repository):
    """The same through the program, without pytest around it."""
    command = [sys.executable, "tools/test_net.py", *tiny_run.command(keys={"TEST.IMS_PER_BATCHES": 1})]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
