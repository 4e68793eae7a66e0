"""The scripts on several nodes, and how a job is told to stop and ends; around the stub interpreter of test_scripts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from tests.test_scripts import DEMO, JOB, REPOSITORY, Checkout

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def options(call):
    """The options of torchrun as a dict, and what it runs."""
    assert call[0] == "-u"
    assert call[1].endswith("/scripts/launch.py")
    end = next(index for index, word in enumerate(call) if word.endswith("worker.py"))
    return dict(word.removeprefix("--").split("=", 1) for word in call[2:end]), call[end + 1 :]


def test_two_nodes_meet_at_the_first(checkout):
    port = free_port()
    for rank in (0, 1):
        done = checkout.run("train.sh", DEMO, NNODES=2, NODE_RANK=rank, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        assert done.returncode == 0, done.stderr
    calls = [call for call in checkout.calls() if call[0] == "-u"]
    (first, tool), (second, _) = map(options, calls)
    assert tool[0] == f"{checkout.root}/tools/train_net.py"
    both = {
        "nnodes": "2", "nproc_per_node": "1", "max_restarts": "3", "rdzv_backend": "c10d", "rdzv_id": "maskrcnn",
        "rdzv_endpoint": f"127.0.0.1:{port}",
    }  # fmt: skip
    assert first == both | {"local_addr": "127.0.0.1", "rdzv_conf": "is_host=True,join_timeout=600"}
    assert second == both | {"local_addr": "~00001-127.0.0.1", "rdzv_conf": "is_host=False,join_timeout=600"}
    assert sorted([second["local_addr"], first["local_addr"]])[0] == first["local_addr"], "process 0 is on node 0"
    assert {path.name for path in checkout.results.iterdir()} == {"joblog.log", "joblog_node1.log"}
    shown = [call for call in checkout.calls() if "show_predictions.py" in call[0]]
    assert len(shown) == 1, "only the first node has the model"


def test_elastic_and_own_settings(checkout):
    port = free_port()
    own = {"RDZV_ID": "j o b", "MAX_RESTARTS": 7, "RDZV_TIMEOUT": 90, "RDZV_CONF": "last_call_timeout=5", "GPU": 2}
    done = checkout.run("train.sh", JOB, NNODES="1:4", RDZV_ENDPOINT=f"localhost:{port}", OMP_NUM_THREADS="", **own)
    assert done.returncode == 0, done.stderr
    found, _ = options(checkout.calls()[0])
    assert (found["nnodes"], found["max_restarts"], found["rdzv_id"], found["nproc_per_node"]) == (
        "1:4",
        "7",
        "j o b",
        "2",
    )
    assert found["rdzv_conf"] == "is_host=True,join_timeout=90,last_call_timeout=5", "localhost is this machine"


def test_static_rendezvous(checkout):
    settings = {"NNODES": 2, "NODE_RANK": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29501}
    done = checkout.run("eval.sh", JOB, "MODEL.WEIGHT", "w.pth", RDZV_BACKEND="static", **settings)
    assert done.returncode == 0, done.stderr
    found, tool = options(checkout.calls()[0])
    assert found == {
        "nnodes": "2", "max_restarts": "3", "rdzv_backend": "static", "node_rank": "1", "master_addr": "127.0.0.1",
        "master_port": "29501", "nproc_per_node": "1",
    }  # fmt: skip
    assert tool[0] == f"{checkout.root}/tools/test_net.py"


def test_a_pod_of_the_training_operator_needs_no_settings(checkout):
    port = free_port()
    pod = {
        "PET_NNODES": "1:2",
        "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}",
        "PET_RDZV_ID": "job",
        "PET_MAX_RESTARTS": "100",
    }
    assert checkout.run("train.sh", JOB, **pod).returncode == 0
    found, _ = options(checkout.calls()[0])
    assert (found["nnodes"], found["rdzv_endpoint"], found["max_restarts"]) == ("1:2", f"127.0.0.1:{port}", "100")
    pod = {"PET_NNODES": 2, "PET_NODE_RANK": 1, "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
    assert checkout.run("train.sh", JOB, **pod).returncode == 0
    found, _ = options(checkout.calls()[1])
    assert (found["rdzv_endpoint"], found["rdzv_conf"].split(",")[0]) == (f"127.0.0.1:{port}", "is_host=False")


def test_an_elastic_pod_has_its_number_in_its_name(checkout):
    program = checkout.stub.parent / "hostname"
    program.write_text("#!/bin/sh\necho job-worker-1\n")
    program.chmod(0o755)
    pod = {"PET_NNODES": "1:2", "PET_RDZV_ENDPOINT": f"127.0.0.1:{free_port()}"}
    done = checkout.run("train.sh", JOB, PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}", **pod)
    assert done.returncode == 0, done.stderr
    found, _ = options(checkout.calls()[0])
    assert found["local_addr"] == "~00001-127.0.0.1"


def test_the_name_of_a_pod_may_come_late(monkeypatch):
    check, asked = load("check_nodes"), []
    found = socket.getaddrinfo("127.0.0.1", 29500, type=socket.SOCK_STREAM)

    def resolve(*_, **__):
        asked.append(1)
        if len(asked) < 3:
            raise socket.gaierror("not yet")
        return found

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(check.time, "sleep", lambda _: None)
    with pytest.raises(ValueError, match="cannot be resolved"):
        check.main("pod", 29500, "1")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert check.main("pod", 29500, "1") == "127.0.0.1 False"
    assert len(asked) == 3


def test_one_node_restarts_when_asked(checkout):
    assert checkout.run("train.sh", JOB, MAX_RESTARTS=2).returncode == 0
    found = checkout.calls()[0]
    assert found[3:6] == ["--standalone", "--max_restarts=2", "--nproc_per_node=1"]


HERE = {"MASTER_ADDR": "127.0.0.1"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NNODES": "two"}, "NNODES is 'two'"),
        ({"NNODES": "4:2"}, "MIN that is not above MAX"),
        ({"NNODES": 2}, "set MASTER_ADDR"),
        ({"NNODES": 2, "NODE_RANK": 2, **HERE}, "numbered from 0 to 1"),
        ({"NODE_RANK": 1}, "NNODES is 1: nodes are numbered from 0 to 0"),
        ({"NNODES": 2, "NODE_RANK": "x", **HERE}, "NODE_RANK is 'x'"),
        ({"NNODES": 2, "MASTER_PORT": 70000, **HERE}, "from 1 to 65535"),
        ({"NNODES": 2, "MASTER_ADDR": "no-such-host.invalid"}, "no-such-host.invalid cannot be resolved"),
        ({"NNODES": 2, "NODE_RANK": 0, "MASTER_ADDR": "192.0.2.1"}, "192.0.2.1 is no address of this node"),
        ({"NNODES": 2, "MAX_RESTARTS": "-1", **HERE}, "MAX_RESTARTS is '-1'"),
        ({"NNODES": 2, "RDZV_TIMEOUT": "soon", **HERE}, "number of seconds"),
        ({"NNODES": 2, "RDZV_BACKEND": "etcd", **HERE}, "c10d or static"),
        ({"NNODES": "1:2", "NODE_RANK": 0, "RDZV_BACKEND": "static", "MASTER_PORT": "29777", **HERE}, "fixed NNODES"),
    ],
)
def test_a_wrong_combination_is_one_sentence(checkout, settings, said):
    done = checkout.run("train.sh", JOB, **settings)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert checkout.calls() == []


def test_a_port_in_use_is_named(checkout):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = checkout.run("train.sh", JOB, NNODES=2, NODE_RANK=0, MASTER_PORT=port, **HERE)
        assert f"port {port} of 127.0.0.1 is in use" in done.stderr
        assert done.returncode == 1
        assert checkout.run("train.sh", JOB, NNODES=2, NODE_RANK=1, MASTER_PORT=port, **HERE).returncode == 0


def test_nodes_that_do_not_meet_are_explained(checkout):
    error = "torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError"
    done = checkout.run(
        "train.sh", JOB, NNODES=2, NODE_RANK=0, MASTER_PORT=free_port(), STUB_PRINTS=error, STUB_STATUS=1, **HERE
    )
    assert done.returncode == 1
    assert "start every node with the same NNODES" in done.stderr.splitlines()[-1]


def test_benchmarks_count_the_images_of_all_nodes(checkout):
    settings = {"NNODES": 2, "NODE_RANK": 1, "MASTER_PORT": free_port(), **HERE}
    done = checkout.run("train_benchmark.sh", "fp32", "2", "False", "False", **settings)
    assert done.returncode == 0, done.stderr
    call = checkout.calls()[0]
    assert call[call.index("SOLVER.IMS_PER_BATCH") + 1] == "48"
    assert "Training perf" not in done.stdout, "the first node prints it"


# A job that says when it is ready, ends in its own way when told to stop, and else goes on.
JOB_THAT_LISTENS = """
import os, signal, sys, time
def stop(number, frame):
    print("told to stop by", number, flush=True)
    sys.exit(int(os.environ.get("STUB_CODE", "75")))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, stop)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("sent", "to_group"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGUSR1, False), (signal.SIGINT, True)],
)
def test_told_to_stop(checkout, sent, to_group):
    """A signal to the script alone (the first process of a container) or to all (a batch system) reaches the job."""
    checkout.stub.write_text(
        checkout.stub.read_text().replace(
            "\nesac\n", f"\n  *train_net.py*) exec {sys.executable} -c '{JOB_THAT_LISTENS}' ;;\nesac\n", 1
        )
    )
    keep = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "NNODES")}
    script = subprocess.Popen(
        ["bash", str(checkout.root / "scripts" / "train.sh"), DEMO],
        env=keep | {
            "PYTHON": str(checkout.stub), "STUB_LOG": str(checkout.log), "RESULTS": str(checkout.results),
            "SKIP_SETUP": "1",
        },
        cwd=checkout.root.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        # A shell cannot listen to what was ignored when it began, as Ctrl-C is in what another shell runs with "&".
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    lines = []
    for line in script.stdout:
        lines.append(line)
        if line == "ready\n":
            (os.killpg if to_group else os.kill)(script.pid, sent)
    assert script.wait(timeout=30) == 75
    assert "".join(lines).count("told to stop by") == 1
    assert "Done" not in "".join(lines)
    assert "told to stop by" in (checkout.results / "joblog.log").read_text()


def load(name):
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", REPOSITORY / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("body", "written"),
    [
        ("raise SystemExit(75)", "75"),
        ("raise SystemExit('a message')", "1"),
        ("raise RuntimeError('x')", "1"),
        ("raise SystemExit(0)", None),
        ("raise SystemExit", None),
        ("pass", None),
    ],
)
def test_a_worker_writes_down_how_it_failed(tmp_path, monkeypatch, body, written):
    tool, status = tmp_path / "tool.py", tmp_path / "status"
    tool.write_text(f"if __name__ == '__main__':\n    {body}\n")
    status.write_text("9")  # of an earlier attempt
    monkeypatch.setenv("MASKRCNN_STATUS_FILE", str(status))
    monkeypatch.setenv("LOCAL_RANK", "0")
    with contextlib.suppress(SystemExit, RuntimeError):
        load("worker").main(str(tool))
    assert (status.read_text() if status.exists() else None) == written


def test_the_first_failure_counts(tmp_path, monkeypatch):
    status = tmp_path / "status"
    monkeypatch.setenv("MASKRCNN_STATUS_FILE", str(status))
    for rank, code in (("1", 75), ("2", 1)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        (tmp_path / "tool.py").write_text(f"raise SystemExit({code})")
        with pytest.raises(SystemExit):
            load("worker").main(str(tmp_path / "tool.py"))
    assert status.read_text() == "75"


@pytest.mark.parametrize(("before", "restart", "runs"), [("2", "1", False), ("2", "0", True), ("75", "1", True)])
def test_a_mistake_of_the_user_is_not_made_again(tmp_path, monkeypatch, before, restart, runs):
    tool, status, mark = tmp_path / "tool.py", tmp_path / "status", tmp_path / "mark"
    tool.write_text(f"open({str(mark)!r}, 'w')")
    status.write_text(before)
    monkeypatch.setenv("MASKRCNN_STATUS_FILE", str(status))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restart)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with contextlib.nullcontext() if runs else pytest.raises(SystemExit, match=r"^2$"):
        load("worker").main(str(tool))
    assert mark.exists() == runs
    assert status.exists() != runs, "the reason stays where the job's end is read"
