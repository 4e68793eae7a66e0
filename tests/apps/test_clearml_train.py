"""tools/clearml_train.py: what becomes of its options, of the config and of the task."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch.distributed.run

from maskrcnn_benchmark.apps import clearml_train
from maskrcnn_benchmark.apps.clearml_options import TORCHRUN_FLAGS, TORCHRUN_VALUES, make_options, make_parser
from maskrcnn_benchmark.apps.clearml_task import begin_task, finish_task, make_destination, read_overrides
from maskrcnn_benchmark.config import cfg
from tests.apps.clearml_stubs import REPOSITORY, make_environment

CONFIG = "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"


def options(*words):
    return make_options(make_parser().parse_args(list(words)))


class Task:
    """A task of ClearML as far as the launcher looks at it."""

    id = "4711"

    def __init__(self, parameters=None, *, remote=False):
        self.parameters = parameters or {}
        self.remote = remote
        self.calls = []

    def running_locally(self):
        return not self.remote

    def get_parameters(self):
        return self.parameters

    def reload(self):
        self.calls.append("reload")

    def mark_stopped(self):
        self.calls.append("stopped")

    def close(self):
        self.calls.append("close")


# Options.


def test_torchrun_has_no_other_options_that_say_how_to_launch():
    """Against torchrun's own parser: all but those that choose what is run, and its two positional words."""
    actions = torch.distributed.run.get_args_parser()._actions
    theirs = {action.dest for action in actions if action.option_strings}
    assert theirs - {"help", "module", "no_python", "run_path"} == TORCHRUN_VALUES.keys() | TORCHRUN_FLAGS.keys()


def test_torchrun_understands_what_it_is_passed():
    given = options(
        "--config", "c.yaml", "--standalone", "True", "--nproc_per_node", "2", "--max-restarts", "3",
        "--rdzv_conf", "timeout=9,is_host=1", "--node_rank=1", "--nnodes", "1:4", "--virtual-local-rank",
    )  # fmt: skip
    understood = torch.distributed.run.get_args_parser().parse_args([*given.torchrun, "script.py"])
    assert understood.standalone
    assert understood.virtual_local_rank
    assert (understood.nproc_per_node, understood.nnodes, understood.rdzv_conf) == ("2", "1:4", "timeout=9,is_host=1")
    assert (int(understood.max_restarts), int(understood.node_rank)) == (3, 1)
    assert given.has_nodes


def test_by_default_there_is_one_process():
    given = options("--config", "c.yaml")
    assert given.torchrun == ["--nproc_per_node=1"]
    assert not given.has_nodes


@pytest.mark.parametrize("text", ["False", "false", "", "0", "None"])
def test_flags_come_as_text(text):
    assert "--standalone" not in options("--config", "c.yaml", f"--standalone={text}").torchrun


@pytest.mark.parametrize(
    ("words", "part"),
    [([], "no config"), (["--config="], "no config"), (["--standalone", "perhaps"], "standalone must be True or False"),
     (["--opts", "OUTPUT_DIR 'x"], "cannot be split")],
)  # fmt: skip
def test_mistakes_are_named(words, part):
    with pytest.raises(ValueError, match=part):
        options(*([] if part == "no config" else ["--config", "c.yaml"]), *words)


def test_an_agent_gives_values_without_a_command_line():
    """What ClearML does on an agent: defaults replaced, None for a field that was emptied, and no words."""
    parser = make_parser()
    parser.set_defaults(config="c.yaml", opts="SOLVER.STEPS '(1, 2)' OUTPUT_DIR out", standalone="True", nnodes=None)
    given = make_options(parser.parse_args([]))
    assert given.opts == ["SOLVER.STEPS", "(1, 2)", "OUTPUT_DIR", "out"]
    assert given.torchrun == ["--standalone", "--nproc_per_node=1"]
    positional = [action for action in parser._actions if not action.option_strings or action.required]
    assert positional == []


# The config.


def make_run(*words, task=None):
    given = options("--config", CONFIG, *words)
    config = clearml_train.find_config(CONFIG)
    plan = clearml_train.make_plan(cfg, config, given, task)
    return plan, clearml_train.make_pairs(cfg, config, plan, task)


def test_without_clearml_only_the_folder_is_chosen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan, pairs = make_run("--opts", "SOLVER.MAX_ITER 5")
    assert pairs == ["SOLVER.MAX_ITER", "5", "OUTPUT_DIR", "results/mask_rcnn_R_18_FPN_shapes"]
    assert (plan.project, plan.name) == ("maskrcnn_benchmark", "MaskRCNN_mask_rcnn_R_18_FPN_shapes")
    assert Path(plan.output_dir).is_dir()


def test_what_the_web_page_holds_is_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = Task({"Args/opts": "", "Overrides/SOLVER.BASE_LR": "0.25", "Overrides/SEED": ""}, remote=True)
    _, pairs = make_run("--opts", "SOLVER.BASE_LR 0.5 TRACKING.BACKENDS jsonl", task=task)
    tree = cfg.clone()
    tree.merge_from_list(pairs)
    assert tree.SOLVER.BASE_LR == 0.25
    assert tree.OUTPUT_DIR == "results/4711"
    assert tree.TRACKING.BACKENDS == ("jsonl", "clearml")
    assert tree.TRACKING.UPLOAD_MODEL


def test_what_was_set_stays(tmp_path):
    words = f"OUTPUT_DIR '{tmp_path}/my out' TRACKING.UPLOAD_MODEL False TRACKING.BACKENDS clearml"
    plan, pairs = make_run("--opts", words, task=Task(remote=True))
    assert pairs == [
        "OUTPUT_DIR",
        f"{tmp_path}/my out",
        "TRACKING.UPLOAD_MODEL",
        "False",
        "TRACKING.BACKENDS",
        "clearml",
    ]
    assert plan.output_dir == f"{tmp_path}/my out"


def test_a_local_task_keeps_its_model_on_the_disk(tmp_path):
    _, pairs = make_run("--opts", f"OUTPUT_DIR {tmp_path}", task=Task())
    assert "TRACKING.UPLOAD_MODEL" not in pairs
    assert "clearml" in pairs[-1]


# The task.


def test_overrides_of_no_task_are_none():
    assert read_overrides(None) == []
    assert read_overrides(Task()) == []


@pytest.mark.parametrize("reason", ["MissingConfigError", "RuntimeError"])
def test_training_does_not_depend_on_a_server(reason, caplog, monkeypatch):
    monkeypatch.setenv("CLEARML_API_SECRET_KEY", "swordfish-swordfish")
    error = type(reason, (Exception,), {})("no server for swordfish-swordfish")

    def init(**_keywords):
        raise error

    package = types.SimpleNamespace(Task=types.SimpleNamespace(init=init))
    assert begin_task(package, "p", "n") is None
    assert begin_task(None, "p", "n") is None
    assert ("has no task" in caplog.text) == (reason == "RuntimeError")
    assert "swordfish" not in caplog.text


@pytest.mark.parametrize(("before", "after"), [(None, True), ("", True), ("s3://bucket", "s3://bucket")])
def test_models_of_an_agent_have_a_destination(before, after):
    task = types.SimpleNamespace(output_uri=before)
    make_destination(task)
    assert task.output_uri == after


@pytest.mark.parametrize(
    ("status", "remote", "calls"),
    [
        (0, False, ["reload"]),
        (1, False, ["reload"]),
        (75, False, ["reload", "stopped", "close"]),
        (75, True, ["reload"]),
    ],
)
def test_a_task_that_was_stopped_says_so(status, remote, calls):
    task = Task(remote=remote)
    finish_task(task, status)
    assert task.calls == calls


def test_mistakes_end_the_program_before_there_are_processes(tmp_path):
    tool = str(REPOSITORY / "tools" / "clearml_train.py")
    words = ["--config", CONFIG, "--opts", "SOLVER.MAX_ITR 5"]
    done = subprocess.run(
        [sys.executable, tool, *words],
        env=make_environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "did you mean SOLVER.MAX_ITER" in done.stderr
    assert done.stderr.count("error: ") == 1
