"""Archives for "import model": the platform takes them, and what it unpacks is the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile

import pytest
import torch
import yaml

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.ymir import package
from maskrcnn_benchmark.ymir.package_options import make_parser
from tests.apps.tiny_run import CONFIG, OPTIONS
from tests.ymir import small
from tests.ymir.platform import storage
from tests.ymir.platform.backend import Platform
from tests.ymir.platform.photos import draw
from tests.ymir.platform.producer import FIRST, SECOND, Order

NAMES = ["forklift", "pallet"]
FIGURES = {"mAP": 0.36, "maskAP": 0.31, "boxAP": 0.27}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The output folder of a training with two classes, without the training."""
    folder = tmp_path_factory.mktemp("run")
    cfg = defaults.clone()
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list([word for pair in (OPTIONS | {"MODEL.ROI_BOX_HEAD.NUM_CLASSES": 3}).items() for word in pair])
    model = build_detection_model(cfg)
    torch.save({"model": model.state_dict(), "config": cfg.dump(), "optimizer": {"momentum": torch.ones(9)}},
               folder / "model_final.pth")  # fmt: skip
    (folder / "last_checkpoint").write_text(str(folder / "model_final.pth"))
    (folder / "categories.json").write_text(json.dumps([{"id": 7, "name": name} for name in NAMES]))
    figures = {"bbox": {"AP": 0.27, "AP50": 0.36}, "segm": {"AP": 0.31, "AP50": 0.4}}
    manifest = {"format": 1, "end": {"evaluation": figures}, "starts": [], "facts": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def pack(run, target, *words):
    args = make_parser().parse_args([str(run), "-o", str(target), *words])
    return package.main(args)


def test_a_run_becomes_a_model_of_the_second_generation(run, tmp_path):
    target = tmp_path / "model.tar.gz"
    identity = pack(run, target, "--executor", "team/ymir-executor:ymir2.0.0-maskrcnn-cu133-tmi", "--producer", "me")
    model = storage.import_package(target, tmp_path / "store")
    assert model.path.name == identity
    assert model.information == {
        "executor_config": {"class_names": NAMES},
        "task_context": {"executor": "team/ymir-executor:ymir2.0.0-maskrcnn-cu133-tmi", "producer": "me", "mAP": 0.36,
                         "type": 1},
        "package_version": "2.0.0", "object_type": 4, "best_stage_name": "best",
        "stages": {"best": {"stage_name": "best", "files": ["model_final.pth", "config.yaml"],
                            "timestamp": int((run / "model_final.pth").stat().st_mtime), **FIGURES}},
    }  # fmt: skip
    assert model.unpack(tmp_path / "in", has_stages=True) == ["best/model_final.pth", "best/config.yaml"]
    unpacked = tmp_path / "in" / "best"
    content = torch.load(unpacked / "model_final.pth", weights_only=True)
    assert set(content) == {"model"}, "the optimiser's state is of no use there"
    wanted = torch.load(run / "model_final.pth", weights_only=True)["model"]
    assert content["model"].keys() == wanted.keys()
    assert all(torch.equal(content["model"][name], value) for name, value in wanted.items())
    predictor = Predictor.from_checkpoint(unpacked / "model_final.pth", config_file=unpacked / "config.yaml")
    assert len(predictor.categories) == 2


def test_a_model_of_the_first_generation(run, tmp_path):
    target = tmp_path / "model.tar.gz"
    pack(run, target, "--package-version", "1.1.0")
    known = storage.import_package(target, tmp_path / "store").information
    assert known["models"] == ["model_final.pth", "config.yaml"]
    assert known["task_context"]["mAP"] == 0.36
    assert not {"stages", "package_version"} & known.keys()


def test_the_same_model_has_the_same_id(run, tmp_path):
    assert pack(run, tmp_path / "a.tar.gz") == pack(run, tmp_path / "b.tar.gz")
    assert pack(run, tmp_path / "c.tar.gz", "--metrics", "mAP=0.4") != pack(run, tmp_path / "a.tar.gz")


def test_what_is_given_wins(run, tmp_path):
    extra = tmp_path / "model.onnx"
    extra.write_bytes(b"onnx")
    pack(run, tmp_path / "a.tar.gz", "--metrics", "maskAP=.5", "mAP=1", "--class-names", "a, b", "--stage", "iter_9",
         "--add", str(extra))  # fmt: skip
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        known = yaml.safe_load(archive.extractfile("ymir-info.yaml"))
        assert archive.extractfile("model.onnx").read() == b"onnx"
    stage = known["stages"]["iter_9"]
    assert (stage["maskAP"], stage["mAP"], stage["boxAP"]) == (0.5, 1.0, 0.27)
    assert known["executor_config"]["class_names"] == ["a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize(("version", "generation"), [("2.0.0", SECOND), ("1.1.0", FIRST)])
def test_an_imported_model_mines_and_infers(run, tmp_path, version, generation):
    pack(run, tmp_path / "model.tar.gz", "--package-version", version)
    platform = Platform(tmp_path)
    model = storage.import_package(tmp_path / "model.tar.gz", platform.store)
    order = Order(["mining", "infer"], generation, candidates=draw(3), model=model, settings=small.mining())
    outcome = platform.execute(order)
    assert outcome.code == 0, outcome.run.log[-3000:]
    assert len(outcome.mined) == len(outcome.inferred) == 3


@pytest.mark.parametrize(("words", "message"), [
    (["--metrics", "mAP=36"], "from 0 to 1"),
    (["--metrics", "AP=0.3"], "takes mAP"),
    (["--class-names", "one"], "1 class names were given"),
    (["--add", "config.yaml"], "config.yaml twice"),
])  # fmt: skip
def test_mistakes(run, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        pack(run, tmp_path / "a.tar.gz", *words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.tar.gz").exists()


def test_figures_that_are_not_known_are_asked_for(run, tmp_path, capsys):
    for name in ("model_final.pth", "categories.json"):
        os.link(run / name, tmp_path / name)
    with pytest.raises(SystemExit):
        pack(tmp_path / "model_final.pth", tmp_path / "a.tar.gz")
    assert "--metrics mAP maskAP=0.31" in capsys.readouterr().err


def test_the_program_says_what_it_takes(repository):
    done = subprocess.run([sys.executable, "-X", "importtime", "tools/ymir_pack_model.py", "--help"],
                          cwd=repository, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0
    assert "--package-version" in done.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    named = make_parser().parse_args(["a"])
    assert (named.package_version, named.stage, named.output) == ("2.0.0", "best", "model.tar.gz")
