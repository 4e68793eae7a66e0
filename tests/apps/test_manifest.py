"""OUTPUT_DIR/manifest.json: what it holds, that it never costs a run, and that no secret gets into it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

import maskrcnn_benchmark
from maskrcnn_benchmark.apps import manifest as manifest_module
from maskrcnn_benchmark.apps import manifest_facts
from maskrcnn_benchmark.apps.manifest import RunRecord, read_manifest
from maskrcnn_benchmark.apps.manifest_facts import (
    gather_processes,
    git_facts,
    hide_secrets,
    make_config_facts,
    name_odd_processes,
    program_facts,
)
from maskrcnn_benchmark.checkpoint.files import read_weights
from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.utils import collect_env
from maskrcnn_benchmark.utils.digest import digest_file, digest_tensors
from maskrcnn_benchmark.utils.nested import flatten
from tests.apps.repeat_runs import runs

__all__ = ["runs"]  # a fixture


def test_it_holds_what_the_promise_depends_on(runs):
    content = runs.manifest("whole")
    facts = flatten(content["facts"])
    assert content["format"] == 1
    assert facts["versions.torch"] == torch.__version__
    assert facts["versions.python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"versions.numpy", "versions.pycocotools", "machine.libc", "machine.processor"} <= facts.keys()
    assert facts["program.version"] == maskrcnn_benchmark.__version__
    assert facts["machine.instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert (facts["execution.threads"], facts["execution.processes"], facts["execution.nodes"]) == (1, 1, 1)
    assert (facts["execution.device"], facts["execution.dtype"], facts["execution.loader"]) == (
        "cpu",
        "float32",
        "workers",
    )
    assert facts["config.values.SOLVER.MAX_ITER"] == 4
    assert len(facts["config.sha256"]) == 64
    assert (facts["data.train.tiny.images"], len(facts["data.train.tiny.annotations"])) == (5, 64)
    (start,) = content["starts"]
    assert (start["iteration"], start["changes"]) == (0, {})
    final = read_weights(str(runs.path("whole") / "model_final.pth"))["model"]
    assert content["end"]["weights_sha256"] == digest_tensors(final)
    assert (content["end"]["reason"], content["end"]["iteration"]) == ("finished", 4)
    assert content["end"]["evaluation"].keys() == {"bbox", "segm"}


def test_weights_of_a_file_are_covered(runs):
    weight = runs.path("whole") / "model_final.pth"
    runs.train("from_file", "--skip-test", "--max_steps", "1", MODEL__WEIGHT=weight)
    facts = runs.manifest("from_file")["facts"]["weights"]
    assert facts["file_sha256"] == digest_file(weight)
    assert facts["initial_sha256"] == runs.manifest("whole")["end"]["weights_sha256"]


def test_a_start_on_something_else_is_noted(runs):
    runs.train("moved", "--skip-test", "--max_steps", "2")
    runs.train("moved", "--skip-test", SOLVER__BASE_LR=0.25)
    content = runs.manifest("moved")
    assert [start["iteration"] for start in content["starts"]] == [0, 2]
    changes = content["starts"][1]["changes"]
    assert changes.pop("config.sha256")
    assert changes == {"config.values.SOLVER.BASE_LR": [0.005, 0.25], "config.values.SOLVER.MAX_ITER": [2, 4]}
    assert content["facts"]["config"]["values"]["SOLVER.BASE_LR"] == 0.005
    assert content["end"]["iteration"] == 4


def test_how_a_run_ends_is_noted(runs, monkeypatch):
    for error, reason in (
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(85), "exit status 85"),
        (ZeroDivisionError("of mine"), "ZeroDivisionError: of mine"),
    ):

        def end(*args, error=error, **keywords):
            raise error

        monkeypatch.setattr("maskrcnn_benchmark.apps.train.do_train", end)
        with pytest.raises((SystemExit, ZeroDivisionError)):
            runs.train("ended", "--skip-test")
        found = runs.manifest("ended")["end"]
        assert (found["reason"], found["iteration"], found["evaluation"]) == (reason, 0, {})


def test_a_fact_that_cannot_be_found_costs_a_warning(runs, monkeypatch):
    def fail(*args):
        raise RuntimeError("no facts today")

    monkeypatch.setattr(manifest_module, "program_facts", fail)
    runs.train("without", "--skip-test")
    assert "manifest.json is not complete: no facts today" in (runs.path("without") / "log.txt").read_text()
    assert not (runs.path("without") / "manifest.json").exists()
    status, report = runs.compare("whole", "without")
    assert status == 0, report


def test_a_folder_that_cannot_be_written_costs_a_warning(runs, caplog):
    record = RunRecord(str(runs.path("nowhere")))
    record.content = {"facts": {}}
    with record:
        record.finish("finished", {})
    assert "manifest.json is not complete" in caplog.text


def test_without_an_output_folder_nothing_is_written(runs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    runs.tiny.train("--skip-test", "--max_steps", "1", keys={"OUTPUT_DIR": "''"})
    assert not list(tmp_path.iterdir())


def test_secrets_stay_out(runs, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    address = 'https://me:hunter2@host/weights.pth?token=hunter2&x=1"\\'  # quotes that JSON has to escape
    monkeypatch.setattr(sys, "argv", ["tools/train_net.py", "MODEL.WEIGHT", address])
    runs.train("secret", "--skip-test", "--max_steps", "1", MLPERF__ORG=address)
    text = (runs.path("secret") / "manifest.json").read_text()
    assert "hunter2" not in text
    assert "https://host/weights.pth" in runs.manifest("secret")["starts"][0]["command"]
    assert runs.manifest("secret")["facts"]["environment"]["NCCL_ALGO"] == "Ring"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:word@bucket/x.pth and more", "s3://bucket/x.pth and more"),
        ('{"a": "http://u@h/p?q=1", "b": "x?y=2"}', '{"a": "http://h/p", "b": "x?y=2"}'),
        ("https://host/a@b/c#part", "https://host/a@b/c#part"),
        ("https://host?sig=abc rest", "https://host rest"),
    ],
)
def test_what_is_hidden_of_an_address(text, shown):
    assert hide_secrets(text) == shown


def test_only_listed_variables_are_recorded(monkeypatch):
    for name in collect_env.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert collect_env.collect_variables() == {"MKL_CBWR": "COMPATIBLE"}


def git(folder, *words):
    who = ("-c", "user.name=n", "-c", "user.email=e@e", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_state_of_a_checkout(tmp_path, monkeypatch):
    assert git_facts(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert git_facts(tmp_path) is None  # no commit yet
    (tmp_path / "a.py").write_text("1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_facts(tmp_path) == {"commit": commit, "dirty": False, "changes_sha256": None}
    (tmp_path / "a.py").write_text("2\n")
    changed = git_facts(tmp_path)
    assert changed["dirty"]
    (tmp_path / "a.py").write_text("3\n")
    assert git_facts(tmp_path)["changes_sha256"] != changed["changes_sha256"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_facts(tmp_path) is None  # git is not installed


def test_the_source_counts_without_git(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_facts, "PACKAGE", tmp_path)
    digests = set()
    for name, text in (("a.py", "1"), ("a.py", "2"), ("b.py", "2"), ("notes.txt", "3")):
        (tmp_path / name).write_text(text)
        manifest_facts.digest_source.cache_clear()
        digests.add(manifest_facts.digest_source())
    manifest_facts.digest_source.cache_clear()
    assert len(digests) == 3


def test_the_extension_or_why_there_is_none(monkeypatch, tmp_path):
    library = tmp_path / "_C.abi3.so"
    library.write_bytes(b"\0GCC: (Debian 12.2.0-14) 12.2.0\0code\0clang version 17.0.1\0")
    kernels = {"nms": {"cpu": "compiled", "cuda": "plain"}, "match": {"cpu": "compiled", "cuda": "compiled"}}
    info = {"extension": str(library), "missing_reason": None, "kernels": kernels}
    monkeypatch.setattr(manifest_facts, "backend_info", lambda: info)
    assert program_facts()["extension"] == {
        "sha256": digest_file(library),
        "compiler": "GCC: (Debian 12.2.0-14) 12.2.0, clang version 17.0.1",
        "kernels_cpu": "nms match",
        "kernels_cuda": "match",
    }
    info.update(extension=None, missing_reason="no compiler")
    assert program_facts()["extension"]["missing"] == "no compiler"


def test_the_hash_of_a_config_knows_no_folder():
    first, second, third = (global_cfg.clone() for _ in range(3))
    second.OUTPUT_DIR = "/elsewhere"
    third.SOLVER.STEPS = (1, 2)
    hashes = [make_config_facts(each)["sha256"] for each in (first, second, third)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert make_config_facts(third)["values"]["SOLVER.STEPS"] == [1, 2]


def test_processes_on_unlike_machines_are_named():
    alike = {"threads": 1, "torch": "2.13"}
    assert name_odd_processes([alike, alike]) == {}
    assert name_odd_processes([alike, alike, {"threads": 4, "torch": "2.13"}]) == {"2": {"threads": 4}}


def test_a_process_that_knows_nothing_of_itself_does_not_keep_the_others_waiting(monkeypatch):
    monkeypatch.setattr(manifest_facts, "collect_machine", lambda: 1 / 0)
    assert gather_processes(torch.device("cpu")) == [{"unknown": "division by zero"}]


def test_a_processor_that_is_not_described(monkeypatch):
    monkeypatch.setattr(collect_env.Path, "read_text", lambda *args, **keywords: (_ for _ in ()).throw(OSError()))
    machine = collect_env.collect_machine()
    assert machine["processor"]
    assert machine["vector_extensions"] == ""
    assert collect_env._driver_version() == ""


def test_a_file_of_somebody_elses_stays(runs):
    folder = runs.path("web_page")
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "A web page", "icons": []}')
    runs.train("web_page", "--skip-test", "--max_steps", "1")
    assert "A web page" in (folder / "manifest.json").read_text()
    assert "manifest.json is not complete: " in (folder / "log.txt").read_text()


def test_a_manifest_that_is_no_json_is_named(tmp_path):
    (tmp_path / "manifest.json").write_bytes(os.urandom(64))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        read_manifest(str(tmp_path))
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, "facts": [], "starts": {}}))
    with pytest.raises(ValueError, match="facts or starts are missing"):
        read_manifest(str(tmp_path))
