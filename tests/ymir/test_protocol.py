"""env.yaml, config.yaml and monitor.txt."""

from __future__ import annotations

import errno
import os

import pytest

from maskrcnn_benchmark.ymir import monitor as monitor_module
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.monitor import Monitor, Progress, phase_weights
from maskrcnn_benchmark.ymir.protocol import InputPaths, OutputPaths, Protocol, read_environment
from maskrcnn_benchmark.ymir.settings import JobSettings, read_settings

NEW = Protocol(has_stages=True, has_return_codes=True)
OLD = Protocol(has_stages=False, has_return_codes=False)


def environment(folder, text):
    path = folder / "env.yaml"
    path.write_text(text)
    return read_environment(str(path))


def settings(**values):
    return JobSettings(values)


@pytest.mark.parametrize(
    ("version", "platform", "expected"),
    [
        ("", "", (False, False)),
        ("0.0.1", "1.1.0", (False, False)),
        ("", "1.2.0", (True, False)),
        ("", "nonsense", (False, False)),
        ("1.0.0", "", (True, False)),
        ("1.0.0", "1.1.0", (True, False)),
        ("1.1.0", "", (True, True)),
        ("2.0.0", "", (True, True)),
        ("1.10", "", (True, True)),
    ],
)
def test_generations(version, platform, expected):
    protocol = Protocol.of(version, platform)
    assert (protocol.has_stages, protocol.has_return_codes) == expected


def test_what_env_yaml_leaves_out_has_its_default(tmp_path):
    found = environment(tmp_path, "run_training: true\nunknown: 1\n")
    assert (found.task_id, found.protocol) == ("default-task", OLD)
    assert (found.input, found.output) == (InputPaths(), OutputPaths())
    assert found.input.training_index_file == "/in/train-index.tsv"
    assert found.output.mining_result_file == "/out/result.tsv"
    assert found.work_dir == "/out/.cache"


def test_paths_of_env_yaml_count(tmp_path):
    found = environment(
        tmp_path,
        "task_id: t1\nprotocol_version: 1.1.0\nrun_mining: 'True'\nrun_infer: 1\n"
        "input: {root_dir: /a, config_file: c/config.yaml, val_index_file: ''}\noutput: {monitor_file: /m/m.txt}\n",
    )
    assert (found.run_training, found.run_mining, found.run_infer) == (False, True, True)
    assert found.protocol == NEW
    # A relative path and a missing key begin at the root folder; an empty value stands for no file.
    assert (found.input.config_file, found.input.models_dir) == ("/a/c/config.yaml", "/a/models")
    assert found.input.val_index_file == ""
    assert found.output.monitor_file == "/m/m.txt"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run_training: false\n", "asks for nothing"),
        ("run_training: true\nrun_infer: true\n", "together"),
        ("run_training: perhaps\n", "true or false"),
        ("[1, 2]\n", "keys and values"),
        ("a: [\n", "cannot be read"),
        ("run_infer: true\ninput: 3\n", "must hold paths"),
    ],
)
def test_an_env_yaml_that_cannot_be_used(tmp_path, text, words):
    with pytest.raises(JobError, match=words) as caught:
        environment(tmp_path, text)
    assert caught.value.code == ReturnCode.CONFIG


def test_the_variables_name_the_file(tmp_path, monkeypatch):
    for name, task in (("YMIR_ENV_FILE", "ours"), ("DEFAULT_ENV_FILE_PATH", "theirs")):
        (tmp_path / task).write_text(f"task_id: {task}\nrun_infer: true\n")
        monkeypatch.setenv(name, str(tmp_path / task))
    assert read_environment().task_id == "ours"
    monkeypatch.delenv("YMIR_ENV_FILE")
    assert read_environment().task_id == "theirs"


def test_settings_may_be_text():
    found = settings(a="4000.0", b="T", c="0", d=" x ", e="", f="1.5", g="p, q,,r ")
    assert found.integer("a", 1) == 4000
    assert (found.flag("b"), found.flag("c", True), found.flag("e", True)) == (True, False, True)
    assert (found.text("d"), found.text("e", "default"), found.number("f", 0)) == ("x", "default", 1.5)
    assert found.names("g") == ["p", "q", "r"]


@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_settings_that_are_no_numbers(key):
    with pytest.raises(JobError, match=key) as caught:
        settings(a="four", b="nan", c="1.5").integer(key, 1)
    assert caught.value.code == ReturnCode.CONFIG


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ({"gpu_id": ""}, []),
        ({"gpu_id": "0, 1"}, [0, 1]),
        ({"gpu_id": 3}, [3]),
        ({"gpu_count": "2"}, [0, 1]),
        ({"gpu_count": 0}, []),
        ({}, None),
    ],
)
def test_gpus(values, ids):
    assert settings(**values).gpu_ids == ids


@pytest.mark.parametrize(("value", "words"), [("0,0", "different"), ("a", "number"), ("-1", "different")])
def test_gpus_that_are_none(value, words):
    with pytest.raises(JobError, match=words):
        _ = settings(gpu_id=value).gpu_ids


def test_object_types():
    assert [settings(object_type=value).object_type for value in (2, "4", "", None)] == [2, 4, None, None]
    with pytest.raises(JobError, match="semantic segmentation") as caught:
        _ = settings(object_type=3).object_type
    assert caught.value.code == ReturnCode.OBJECT_TYPE


@pytest.mark.parametrize(("names", "words"), [([], "no class_names"), (["cat", "dog", "Cat"], "twice")])
def test_class_names_that_cannot_be_used(names, words):
    with pytest.raises(JobError, match=words):
        _ = settings(class_names=names).class_names


def test_options_are_pairs():
    assert settings(cfg_options="A.B 'x y' C 1").options == ["A.B", "x y", "C", "1"]
    for text in ("A.B", "A 'x"):
        with pytest.raises(JobError, match="cfg_options"):
            _ = settings(cfg_options=text).options


def test_the_codes_own_config_lies_below_the_users(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own.yaml").write_text("max_iter: 7\nlearning_rate: 1\n")
    (tmp_path / "config.yaml").write_text("code_config: own.yaml\nmax_iter: 9\n")
    path = str(tmp_path / "config.yaml")
    found = read_settings(path, root=str(tmp_path / "code"))
    assert (found.integer("max_iter", 0), found.number("learning_rate", 0)) == (9, 1.0)
    assert read_settings(path, root=None).number("learning_rate", 0) == 0
    with pytest.raises(JobError, match=r"own\.yaml"):
        read_settings(path, root=str(tmp_path))


def test_records_of_both_generations(tmp_path):
    path = tmp_path / "monitor.txt"
    Monitor(str(path), "t1", NEW).running(0.374)
    task, time, *rest = path.read_text().rstrip("\n").split("\t")
    assert (task, rest) == ("t1", ["0.37", "2", "0"])
    assert float(time) > 1.7e9
    Monitor(str(path), "t1", OLD).running(1)
    assert path.read_text().rstrip("\n").split("\t")[2:] == ["1.00", "2"]


def test_records_of_failures(tmp_path):
    path = tmp_path / "monitor.txt"
    details = "\n".join(f"line {number}" for number in range(200))
    Monitor(str(path), "t1", NEW).failed(ReturnCode.OUT_OF_MEMORY, "no\tmemory\nleft", details)
    first, *lines = path.read_text().splitlines()
    assert first.split("\t")[2:] == ["1.00", "4", "300103", "no memory left"]
    assert lines == details.splitlines()[-98:]
    Monitor(str(path), "t1", OLD).failed(ReturnCode.NAN, "not finite")
    first, second = path.read_text().splitlines()
    assert first.split("\t")[2:] == ["1.00", "4"]
    assert second == "300201 not finite"


def test_a_full_disk_leaves_the_record_in_place(tmp_path, monkeypatch, capsys):
    path = tmp_path / "monitor.txt"
    monitor = Monitor(str(path), "t1", NEW)
    monitor.running(0.5)

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(monitor_module, "write_atomically", fail)
    monitor.failed(ReturnCode.OTHER, "full")
    assert path.read_text().split("\t")[2:] == ["1.00", "4", "160004", "full\n"]
    path.unlink()
    monitor.failed(ReturnCode.OTHER, "full")
    assert "160004\tfull" in capsys.readouterr().err


class Recorder:
    def __init__(self):
        self.seen = []

    def running(self, percent):
        self.seen.append(percent)


def test_progress_over_two_phases():
    recorder = Recorder()
    first, second = Progress(recorder, {}).phases(2)
    for share in (first, second):
        share.prepared(1.0)
        for step in range(1001):
            share.done(step / 1000)
        share.finished(1.0)
    assert recorder.seen == sorted(set(recorder.seen))
    assert len(recorder.seen) == 100
    assert (recorder.seen[0], recorder.seen[-1]) == (0.0, 0.99)  # 1.00 comes with the end of the job


def test_weights_of_the_phases():
    environment = {"PREPROCESS_WEIGHT": "0.1", "TASK_WEIGHT": "0.8", "POSTPROCESS_WEIGHT": "0.1"}
    told = []
    progress = Progress(None, environment)
    progress.report = told.append
    share = progress.phases(1)[0]
    share.prepared(0.5)
    share.done(0.5)
    share.finished(0.5)
    assert told == pytest.approx([0.05, 0.5, 0.95])
    with pytest.raises(JobError, match="add up to 1"):
        phase_weights({"TASK_WEIGHT": "0.5"})
