"""A training run, stopped and resumed, tracked by the real programs and read back through their own means."""

from __future__ import annotations

import collections
import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile

import pytest

from maskrcnn_benchmark.tracking.backends import TRACKERS
from tests.apps.tiny_run import TinyRun
from tests.conftest import REPOSITORY
from tests.tracking.wandb_file import records

pytestmark = pytest.mark.extras

SECRET = "s3cr3t-0123456789"
LOSSES = {"loss", "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
PACKAGES = {"mlflow": "mlflow", "clearml": "clearml", "neptune": "neptune", "wandb": "wandb"}


def needs(name):
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{name} is not installed: pip install 'maskrcnn_benchmark[{name}]'")


class TrackedRuns:
    """Starts tools/train_net.py in a folder of its own, where trackers put their files too."""

    def __init__(self, folder):
        self.folder = folder
        self.tiny = TinyRun(folder)
        self.output = self.tiny.output

    def train(self, *flags, backends, variables=None, **keys):
        keys = {
            "TRACKING.BACKENDS": str(tuple(backends)),
            "TRACKING.EXPERIMENT": "exp",
            "TRACKING.TAGS": "('a', 'b')",
            "TRACKING.UPLOAD_MODEL": True,
            "CPU_THREADS": 1,
            "REPORT": True,
            "TRACKING.TIMEOUT": 200.0,  # of a busy machine
            **{name.replace("__", "."): value for name, value in keys.items()},
        }
        own = ("CLEARML", "WANDB", "NEPTUNE", "MLFLOW")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(own)},
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "CLEARML_CACHE_DIR": str(self.folder / "clearml"),
            "CLEARML_OFFLINE_MODE": "1",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            **(variables or {}),
        }  # fmt: skip
        command = [sys.executable, str(REPOSITORY / "tools" / "train_net.py"), *self.tiny.command(*flags, keys=keys)]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four iterations, then two more: the program's own file of figures says what the others must hold."""
    installed = [name for name in TRACKERS if importlib.util.find_spec(PACKAGES[name]) is not None]
    runs = TrackedRuns(tmp_path_factory.mktemp("tracked"))
    backends = ("jsonl", "tensorboard", *installed)
    runs.log = runs.train("--skip-test", backends=backends)
    runs.log += runs.train(backends=backends, SOLVER__MAX_ITER=6)
    return runs


@pytest.fixture(scope="module")
def figures(run):
    return read_figures(run)


def read_figures(run):
    """{name: {iteration: value}} of the iterations, {name: value} of the whole run, {name: value} of the evaluation."""
    lines = [json.loads(line) for line in (run.output / "metrics.jsonl").read_text().splitlines()]
    steps = collections.defaultdict(dict)
    totals = {}
    for line in lines:
        numbers = {name: value for name, value in line.items() if isinstance(value, float) and name != "time"}
        for name, value in numbers.items():
            if line["iteration"] is not None:
                steps[name][line["iteration"]] = value
        totals.update(numbers if line["iteration"] is None else {})
    assert set(steps) >= LOSSES
    assert all(list(values) == [1, 2, 3, 4, 5, 6] for name, values in steps.items() if name in LOSSES)
    tasks = json.loads((run.output / "inference" / "tiny" / "evaluation.json").read_text())["figures"]
    evaluation = {f"{task}/{name}": value for task, part in tasks.items() for name, value in part.items()}
    assert "segm/AP50" in evaluation
    return steps, totals, evaluation


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(math.isclose(found[key], expected[key], rel_tol=1e-6) for key in found)


def test_nothing_was_reported_as_failing(run):
    assert "training does not depend on it" not in run.log


def test_tensorboard_serves_the_run(run, figures):
    """TensorBoard's own server is asked over HTTP; ``purge_step`` leaves one point an iteration."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run.output), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--load_fast", "false"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        names = ask(f"http://127.0.0.1:{port}/data/runs", until=lambda answer: "tensorboard" in answer)
        assert names == ["tensorboard"]
        address = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run=tensorboard&tag="
        steps, _, evaluation = figures
        for name in LOSSES:
            same({step: value for _, step, value in ask(address + name)}, steps[name])
        same({name: ask(address + name)[-1][2] for name in evaluation}, evaluation)
        tags = ask(f"http://127.0.0.1:{port}/data/plugin/images/tags")
        assert list(tags["tensorboard"]) == ["predictions/tiny"]
    finally:
        server.terminate()
        server.wait()


def ask(address, *, until=lambda answer: True, seconds=60):
    """The JSON at an address, once it is what it should be."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as reply:
                answer = json.load(reply)
            if until(answer):
                return answer
        except OSError:
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, address
        time.sleep(0.2)


def test_mlflow_files_are_read_by_its_client(run, figures, monkeypatch):
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_mlflow((run.folder / "mlruns").as_uri(), figures, run)


def check_mlflow(uri, figures, run):
    import mlflow

    steps, totals, evaluation = figures
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("exp")
    (found,) = client.search_runs([experiment.experiment_id])  # one run, though there were two starts
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "out"
    assert found.data.tags.items() >= {"a": "true", "b": "true"}.items()
    assert found.data.params["SOLVER.BASE_LR"] == "0.005"
    assert found.data.params["gpu_count"] == "1"
    for name in LOSSES:
        history = client.get_metric_history(found.info.run_id, name)
        assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]
        same({point.step: point.value for point in history}, steps[name])
    same({name: found.data.metrics[name] for name in evaluation}, evaluation)
    same({name: found.data.metrics[name] for name in totals}, totals)
    names = {entry.path for folder in ("", "evaluation", "figures/predictions")
             for entry in client.list_artifacts(found.info.run_id, folder) if not entry.is_dir}  # fmt: skip
    assert names == {
        "config.yml", "manifest.json", "report.html", "model_final.pth", "evaluation/evaluation.json",
        "figures/predictions/predictions.jpg",
    }  # fmt: skip
    copy = client.download_artifacts(found.info.run_id, "model_final.pth", str(run.folder))
    with open(copy, "rb") as file:
        assert file.read() == (run.output / "model_final.pth").read_bytes()


def test_a_mlflow_server_is_read_through_its_client(tmp_path):
    """A server of MLflow's own on the loopback, of another environment where MLFLOW_PROGRAM names its program."""
    needs("mlflow")
    program = os.environ.get("MLFLOW_PROGRAM")
    if not program and importlib.util.find_spec("flask") is None:
        pytest.skip(
            "mlflow-skinny has no server: pip install mlflow, or set MLFLOW_PROGRAM to the mlflow of another one"
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program] if program else [sys.executable, "-m", "mlflow"]
    command += ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/store.db",
        "--artifacts-destination",
        str(tmp_path / "art"),
    ]
    address = f"http://127.0.0.1:{port}"
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    pytest.skip(f"no MLflow server here: {(tmp_path / 'server.log').read_text()[-300:]}")
                assert time.monotonic() < end
                time.sleep(0.5)
        runs = TrackedRuns(tmp_path)
        variables = {"MLFLOW_TRACKING_URI": address}
        log = runs.train("--skip-test", backends=("jsonl", "mlflow"), variables=variables)
        log += runs.train(backends=("jsonl", "mlflow"), variables=variables, SOLVER__MAX_ITER=6)
        assert "training does not depend on it" not in log
        check_mlflow(address, read_figures(runs), runs)
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def test_clearml_sessions_are_read_back(run, figures):
    """Two sessions, since one on the disk cannot go on: together they hold every iteration once."""
    needs("clearml")
    steps, totals, evaluation = figures
    first, second = sorted((run.folder / "clearml" / "offline").glob("*.zip"), key=lambda path: path.stat().st_mtime)
    scalars, singles, pictures = collections.defaultdict(dict), {}, []
    for path in (first, second):
        with zipfile.ZipFile(path) as archive:
            task = json.loads(archive.read("task.json"))
            lines = archive.read("metrics.jsonl").decode().splitlines()
            stored = archive.namelist()
        for event in (event for line in lines for event in json.loads(line)):
            if event["type"] == "training_debug_image":
                pictures.append((event["metric"], event["variant"], event["iter"]))
            elif event["metric"] == "Summary":
                singles[event["variant"]] = event["value"]
            elif not event["metric"].startswith(":monitor"):
                assert event["iter"] not in scalars[event["metric"], event["variant"]]
                scalars[event["metric"], event["variant"]][event["iter"]] = event["value"]
    for name in LOSSES:
        same(scalars["loss", name], steps[name])
    for name, value in evaluation.items():
        same(scalars[tuple(name.split("/"))], {6: value})
    same({name: singles[name] for name in totals}, totals)
    assert pictures == [("predictions", "tiny", 6)]
    assert (task["project_name"], task["name"]) == ("maskrcnn_benchmark/exp", "out")
    assert sorted(task["tags"]) == ["a", "b"]
    assert task["hyperparams"]["General"]["SOLVER.BASE_LR"]["value"] == "0.005"
    artifacts = {entry["key"] for entry in task["execution"]["artifacts"]}
    assert artifacts == {"Config", "manifest", "report", "Model", "evaluation/tiny"}
    assert any(name.endswith("Config/config.yml") for name in stored)


def test_neptune_files_are_read_back(run, figures):
    """The operations that ``neptune sync`` would send."""
    needs("neptune")
    steps, totals, evaluation = figures
    series, values, uploads = collections.defaultdict(dict), {}, {}
    logs = sorted((run.folder / ".neptune" / "offline").glob("*/data-1.log"), key=lambda path: path.stat().st_mtime)
    assert len(logs) == 2
    decoder = json.JSONDecoder()
    for path in logs:
        text, position = path.read_text(), 0
        while position < len(text.rstrip()):
            content, position = decoder.raw_decode(text, position)
            position += len(text[position:]) - len(text[position:].lstrip())
            operation = content["obj"]
            name = "/".join(operation["path"])
            if operation["type"] == "LogFloats":
                series[name].update({value["step"]: value["value"] for value in operation["values"]})
            elif operation["type"] == "UploadFile":
                uploads[name] = path.parent / "upload_path" / operation["tmp_file_name"]
            else:
                values.setdefault(name, []).append(operation.get("value", operation.get("values")))
    for name in LOSSES:
        same(series[f"metrics/{name}"], steps[name])
    same({name: series[f"metrics/{name}"][6] for name in evaluation}, evaluation)
    same({name: values[f"summary/{name}"][-1] for name in totals}, totals)
    assert values["config/SOLVER/BASE_LR"] == [0.005, 0.005]
    assert [sorted(tags) for tags in values["sys/tags"]] == [["a", "b"], ["a", "b"]]
    assert values["status"] == ["finished", "finished"]
    kept = json.loads((run.output / "trackers.json").read_text())
    assert values["run_id"] == [kept["neptune"], kept["neptune"]]
    assert uploads["files/model"].read_bytes() == (run.output / "model_final.pth").read_bytes()
    assert uploads.keys() == {
        "files/config", "files/manifest", "files/report", "files/model", "files/evaluation/tiny",
        "figures/predictions/tiny",
    }  # fmt: skip


def test_wandb_files_are_read_back(run, figures):
    needs("wandb")
    steps, totals, evaluation = figures
    paths = sorted((run.output / "wandb").glob("offline-run-*/run-*.wandb"))  # their folders begin with the time
    assert len(paths) == 2
    assert len({path.name for path in paths}) == 1  # both starts carry one run id
    history, summary, config, artifacts = collections.defaultdict(dict), {}, {}, set()
    for record in (record for path in paths for record in records(path)):
        kind = record.WhichOneof("record_type")
        items = {}
        if kind == "history":
            items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for name, value in items.items():
                history[name][items["iteration"]] = value
        elif kind == "summary":
            summary.update({item.key or "/".join(item.nested_key): json.loads(item.value_json)
                            for item in record.summary.update})  # fmt: skip
        elif kind == "run":
            config.update({item.key or "/".join(item.nested_key): json.loads(item.value_json)
                           for item in record.run.config.update})  # fmt: skip
            assert (record.run.run_group, sorted(record.run.tags)) == ("exp", ["a", "b"])
        elif kind == "artifact":
            artifacts.add(record.artifact.name)
    for name in LOSSES:
        same(history[name], steps[name])
    same({name: history[name][6] for name in evaluation}, evaluation)
    same({name: summary[name] for name in totals}, totals)
    assert config["SOLVER.BASE_LR"] == 0.005
    assert history["predictions/tiny/_type"] == {6: "image-file"}
    assert {name.rpartition("-")[0] for name in artifacts} == {
        "config", "manifest", "report", "model", "evaluation-tiny"
    }  # fmt: skip


def test_no_secret_is_in_any_file(run):
    """Of the environment, in what the run and its trackers have written."""
    for path in run.folder.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
