"""What we write for YMIR 1.1 is what PyPI's ymir-exc 1.1.0 writes for the same data."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import yaml

from tests.ymir import small
from tests.ymir.platform.backend import Platform
from tests.ymir.platform.photos import draw
from tests.ymir.platform.producer import FIRST, Order

pytestmark = [pytest.mark.slow, pytest.mark.extras]


@pytest.fixture(scope="module")
def sdk():
    """The SDK's modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was written for pydantic 1
        pytest.importorskip("ymir_exc", reason="ymir-exc is not installed (the extra ymir-sdk)")
        from ymir_exc import dataset_reader, env, monitor, result_writer, settings
    return {each.__name__.rpartition(".")[2]: each for each in (dataset_reader, env, monitor, result_writer, settings)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A training and a task that mines and infers, not cleaned."""
    platform = Platform(tmp_path_factory.mktemp("platform"))
    photos = draw(14)
    training = platform.prepare(Order(["training"], FIRST, photos[:6], photos[6:9], settings=small.training()))
    trained = platform.run(training)
    order = Order(["mining", "infer"], FIRST, candidates=photos[9:], model=trained.model, settings=small.mining())
    return trained.run, platform.run(platform.prepare(order)).run


@pytest.fixture
def twin(sdk, tmp_path, monkeypatch):
    """``twin(run)``: the folder that the SDK, told of the same task, writes to."""

    def make(run):
        known = yaml.safe_load((run.job.source / "env.yaml").read_text())
        target = tmp_path / run.job.task_id
        (target / "models").mkdir(parents=True)
        known["output"] = {
            name: str(value).replace(str(run.job.target), str(target)) for name, value in known["output"].items()
        }
        path = tmp_path / "env.yaml"
        path.write_text(yaml.safe_dump(known))
        monkeypatch.setattr(sdk["settings"], "DEFAULT_ENV_FILE_PATH", str(path))
        return target

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield make


def test_progress(sdk, runs, twin, monkeypatch):
    for run in runs:
        target = twin(run)
        with monkeypatch.context() as clock:
            clock.setattr("time.time", lambda now=run.last.timestamp: now)
            sdk["monitor"].write_monitor_logger(run.last.percent)
        assert (run.job.target / "monitor.txt").read_bytes() == (target / "monitor.txt").read_bytes()


def test_results_of_training(sdk, runs, twin):
    target = twin(runs[0])
    ours = runs[0].job.target / "models" / "result.yaml"
    known = yaml.safe_load(ours.read_text())
    sdk["result_writer"].write_training_result(known["model"], known["map"], known["class_aps"])
    assert set(known) == {"model", "map", "class_aps"}
    assert ours.read_bytes() == (target / "models" / "result.yaml").read_bytes()


def test_results_of_mining(sdk, runs, twin):
    target = twin(runs[1])
    ours = runs[1].job.target / "result.tsv"
    rows = [line.split("\t") for line in ours.read_text().splitlines()]
    sdk["result_writer"].write_mining_result([(path, float(score)) for path, score in rows])
    assert ours.read_bytes() == (target / "result.tsv").read_bytes()


def test_results_of_inference(sdk, runs, twin):
    target = twin(runs[1])
    writer = sdk["result_writer"]
    ours = json.loads((runs[1].job.target / "infer-result.json").read_text())
    found = {
        path: [
            writer.Annotation(class_name=each["class_name"], score=each["score"], box=writer.Box(**each["box"]))
            for each in ours["detection"][Path(path).name]["annotations"]
        ]
        for path in runs[1].job.candidate_paths()
    }
    assert any(found.values()), "nothing was found, so nothing is compared"
    writer.write_infer_result(found)
    assert ours == json.loads((target / "infer-result.json").read_text())


def test_both_read_the_same_index(sdk, runs, twin):
    twin(runs[0])
    read = sdk["dataset_reader"]
    lines = [line for line in (runs[0].job.source / "val-index.tsv").read_text().split("\n") if line]
    wanted = [tuple(line.split("\t")) for line in lines]
    assert [pair for pair in read.item_paths(read.DatasetType.VALIDATION) if any(pair)] == wanted
