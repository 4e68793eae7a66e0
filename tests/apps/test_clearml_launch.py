"""How tools/clearml_train.py starts torchrun, tells it to stop, and ends; a program stands for torchrun."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from maskrcnn_benchmark.apps import clearml_train
from maskrcnn_benchmark.apps.clearml_options import make_options, make_parser
from tests.apps.clearml_stubs import REPOSITORY, make_program

# Stands for the interpreter that runs torchrun.
STUB_PYTHON = """#!{python}
import json, os, signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append("TERM"))
signal.signal(signal.SIGINT, lambda *_: told.append("INT"))
names = ("PYTHONPATH", "TORCHELASTIC_SIGNALS_TO_HANDLE", "DATA_DIR")
with open(os.environ["STUB_LOG"], "w") as file:
    json.dump({"words": sys.argv[1:], **{name: os.environ.get(name, "") for name in names}}, file)
waits = os.environ.get("STUB_WAITS")
end = time.monotonic() + 60
while waits and not told and time.monotonic() < end:
    time.sleep(0.02)
if waits:
    time.sleep(0.3)
    open(os.environ["STUB_LOG"] + ".told", "w").write(" ".join(told))
if os.environ.get("STUB_SAYS"):
    open(os.environ["MASKRCNN_STATUS_FILE"], "w").write(os.environ["STUB_SAYS"])
sys.exit(int(os.environ.get("STUB_STATUS", "0")))
"""


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """``launcher(options, words)`` with a stub for torchrun; returns the status and what the stub was given."""
    log = tmp_path / "log.json"
    monkeypatch.setattr(sys, "executable", str(make_program(tmp_path / "bin", "python", STUB_PYTHON)))
    monkeypatch.setenv("STUB_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")

    def launch(*words):
        status = clearml_train.launch(
            make_options(make_parser().parse_args(["--config", "c.yaml", *words])), ["tool.py", "KEY", "a b"]
        )
        return status, json.loads(log.read_text())

    return launch


def test_the_command_of_one_node(launcher):
    status, given = launcher("--nproc_per_node=2", "--standalone")
    worker = str(REPOSITORY / "scripts" / "worker.py")
    run = ["-u", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert given["words"] == [*run, worker, "tool.py", "KEY", "a b"]
    assert status == 0
    assert given["PYTHONPATH"] == f"{REPOSITORY}{os.pathsep}/elsewhere"
    assert "SIGUSR1" in given["TORCHELASTIC_SIGNALS_TO_HANDLE"]


def test_several_nodes_are_watched(launcher):
    _, given = launcher("--nnodes=2", "--node_rank=1", "--master_addr=host")
    assert given["words"][:2] == ["-u", str(REPOSITORY / "scripts" / "launch.py")]
    assert {"--nnodes=2", "--node_rank=1", "--master_addr=host"} < set(given["words"])


@pytest.mark.parametrize(("says", "status"), [("75", 75), ("2", 2), ("", 1)])
def test_the_status_is_that_of_the_training(launcher, monkeypatch, says, status):
    monkeypatch.setenv("STUB_STATUS", "1")
    monkeypatch.setenv("STUB_SAYS", says)
    assert launcher()[0] == status


@pytest.mark.parametrize(("sent", "told"), [("SIGTERM", "TERM"), ("SIGUSR1", "TERM"), ("SIGINT", "INT")])
def test_a_signal_reaches_torchrun_once(launcher, tmp_path, monkeypatch, sent, told):
    """A launcher above this one, such as a batch system, tends to say the same thing twice."""
    monkeypatch.setenv("STUB_WAITS", "1")
    monkeypatch.setenv("STUB_STATUS", "1")
    monkeypatch.setenv("STUB_SAYS", "75")
    number, log = getattr(signal, sent), tmp_path / "log.json"
    before = signal.getsignal(number)

    def send_twice():
        while signal.getsignal(number) is before or not log.exists():
            time.sleep(0.02)
        for _ in range(2):
            os.kill(os.getpid(), number)
            time.sleep(0.05)

    sender = threading.Thread(target=send_twice, daemon=True)
    sender.start()
    assert launcher()[0] == 75
    sender.join()
    assert Path(f"{log}.told").read_text() == told
    assert signal.getsignal(number) is before
