"""The scripts of scripts/docker/, run for real around a stub for docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.containers.image_builder import REPOSITORY, program

SHELL_FILES = sorted([*REPOSITORY.glob("scripts/docker/*.sh"), *REPOSITORY.glob("docker/**/*.sh")])
IMAGE = "nvidia_joc_maskrcnn_pt"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


SETTINGS = ("IMAGE", "CONTAINER", "DOCKER_", "DATASET", "MOUNTS", "RESULTS", "PORTS", "BIND", "JUPYTER_TOKEN",
            "MLRUNS", "LOGDIR", "CPU", "AS_ME")  # fmt: skip


class Docker:
    """A docker that writes down what it is told, in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.log = folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()
        stub = self.bin / "docker"
        stub.write_text(
            f"#!{sys.executable}\nimport json, os, sys\n"
            f"row = [sys.argv[1:], os.getcwd(), os.environ.get('JUPYTER_TOKEN')]\n"
            f"open({str(self.log)!r}, 'a').write(json.dumps(row) + '\\n')\n"
        )
        stub.chmod(0o755)

    def run(self, script, *words, cwd=None, **environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        kept["PATH"] = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", str(REPOSITORY / script), *map(str, words)], cwd=cwd or self.folder, env=kept | environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def call(self, script, *words, **options):
        """The words of the one call of a script that succeeds, the folder, and JUPYTER_TOKEN as docker sees it."""
        done = self.run(script, *words, **options)
        assert done.returncode == 0, done.stderr
        (row,) = [json.loads(line) for line in self.log.read_text().splitlines()]
        self.log.unlink()
        return row


@pytest.fixture
def docker(tmp_path):
    return Docker(tmp_path)


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shell_files_are_sound(path):
    assert b"\r" not in path.read_bytes()
    assert os.access(path, os.X_OK) or path.name == "docker_lib.sh"
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_build_is_the_published_command(docker):
    words, folder, _ = docker.call("scripts/docker/build.sh")
    assert words == ["build", "--rm", "-t", IMAGE, ".", "-f", "Dockerfile"]
    assert folder == str(REPOSITORY)
    more = ["--target", "clearml", "--build-arg", "TZ=Etc/UTC"]
    words, _, _ = docker.call("scripts/docker/build.sh", *more, IMAGE="a b", CPU="1")
    assert words == ["build", "--rm", "-t", "a b", ".", "-f", "Dockerfile.cpu", *more]
    words, _, _ = docker.call("scripts/docker/build.sh", AS_ME="1")
    assert words[7:11] == ["--build-arg", f"UID={os.getuid()}", "--build-arg", f"GID={os.getgid()}"]


def test_interactive_is_the_published_command(docker):
    data = docker.folder / "my data"
    data.mkdir()
    flags = ["--rm", "--name=maskrcnn_interactive", "--shm-size=10g", "--ulimit", "memlock=-1", "--ulimit",
             "stack=67108864", "--ipc=host", "-t", "-i", IMAGE, "bash"]  # fmt: skip
    mounts = ["-v", f"{data}:/datasets/data", "-v", f"{docker.folder}/results:/results"]
    assert docker.call("scripts/docker/interactive.sh", "my data/")[0] == ["run", "--gpus", "all", *mounts, *flags]
    mounts[3] = f"{docker.folder}/out:/results"
    assert docker.call("scripts/docker/interactive.sh", data, "out", DOCKER_GPU_FLAGS="--runtime=nvidia")[0] == [
        "run", "--runtime=nvidia", *mounts, *flags,
    ]  # fmt: skip
    assert docker.call("scripts/docker/interactive.sh", data, "out", DOCKER_GPU_FLAGS="")[0] == ["run", *mounts, *flags]
    some = docker.call("scripts/docker/interactive.sh", data, "out", DOCKER_GPU_FLAGS='--gpus "device=0,1"')[0]
    assert some[1:3] == ["--gpus", '"device=0,1"'], "docker itself reads the quotes"


@pytest.mark.parametrize(
    ("words", "said"), [((), "Usage"), (("--help",), "Usage"), (("nowhere",), "does not exist"), (("a:b",), "colon")]
)
def test_interactive_without_data_mounts_nothing(docker, words, said):
    (docker.folder / "a:b").mkdir()
    done = docker.run("scripts/docker/interactive.sh", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert not docker.log.exists()


def test_run_is_the_published_command(docker):
    shutil.copy(REPOSITORY / ".env.default", docker.folder / ".env")
    data = docker.folder / "coco"
    data.mkdir()
    words, _, _ = docker.call("scripts/docker/run.sh", DATASET="coco")
    ports = [f"-p127.0.0.1:{port}:{port}" for port in (6006, 5000, 8888)]
    start = ["run", "-d", "--init", *ports, "--rm", "-it"]
    rest = ["--ipc=host", "--name=mask_rcnn", "--env-file=.env", f"--volume={docker.folder}:/workspace",
            f"--volume={docker.folder}/results:/results"]  # fmt: skip
    assert words == [*start, "--gpus", "all", *rest, f"--volume={data}:/dataset", "--workdir=/workspace", IMAGE, "fish"]
    words, _, _ = docker.call(
        "scripts/docker/run.sh", "python", "a b.py", PORTS="8501", BIND="0.0.0.0", DOCKER_GPU_FLAGS="", CONTAINER="mine"
    )
    assert words[3] == "-p0.0.0.0:8501:8501"
    assert "--name=mine" in words
    assert "--gpus" not in words
    assert words[-4:] == ["--workdir=/workspace", IMAGE, "python", "a b.py"]


def test_the_competition_s_container(docker):
    """Code and data where the organisers have them, on the GPUs that are named; memory is shared with the host."""
    (docker.folder / ".env").touch()
    data, code = docker.folder / "DATA", docker.folder / "code"
    data.mkdir()
    code.mkdir()
    words, _, _ = docker.call(
        "scripts/docker/run.sh", MOUNTS=f"DATA:/DATA {code}:/USER/code", DOCKER_GPU_FLAGS='--gpus "device=0,1,3"'
    )
    assert f"--volume={data}:/DATA" in words
    assert f"--volume={code}:/USER/code" in words
    assert words[words.index("--gpus") + 1] == '"device=0,1,3"'
    assert "--ipc=host" in words
    for wrong in ("DATA", "DATA:relative", "nowhere:/DATA"):
        assert docker.run("scripts/docker/run.sh", MOUNTS=wrong).returncode == 1


def test_run_says_what_is_missing(docker):
    done = docker.run("scripts/docker/run.sh")
    assert done.returncode == 1
    assert "cp .env.default .env" in done.stderr
    (docker.folder / ".env").touch()
    assert "'x' is not a port" in docker.run("scripts/docker/run.sh", PORTS="80 x").stderr
    assert "DATASET is not set" in docker.run("scripts/docker/run.sh").stderr
    (docker.bin / "docker").unlink()
    only = docker.folder / "only"
    only.mkdir()
    for name in ("bash", "dirname", "id"):
        (only / name).symlink_to(shutil.which(name))
    assert "docker was not found" in docker.run("scripts/docker/attach.sh", PATH=str(only)).stderr


def test_the_others_are_the_published_commands(docker):
    run = docker.call
    assert run("scripts/docker/attach.sh")[0] == ["attach", "mask_rcnn"]
    assert run("scripts/docker/exec.sh")[0] == ["exec", "-it", "mask_rcnn", "fish"]
    assert run("scripts/docker/exec.sh", "python", "-c", "print(1)")[0][3:] == ["python", "-c", "print(1)"]
    assert run("scripts/docker/stop.sh", CONTAINER="mine")[0] == ["stop", "-t", "120", "mine"]
    board = ["exec", "-itd", "mask_rcnn", "tensorboard", "--logdir=.", "--host=0.0.0.0"]
    assert run("scripts/docker/tensorboard.sh")[0] == [*board, "--port=6006"]
    assert run("scripts/docker/tensorboard.sh", "7000")[0] == [*board, "--port=7000"]
    assert run("scripts/docker/mlflow.sh")[0] == [
        "exec", "-itd", "--env=MLFLOW_ALLOW_FILE_STORE=true", "mask_rcnn", "mlflow", "server",
        "--backend-store-uri=./mlruns", "--host=0.0.0.0", "--port=5000",
    ]  # fmt: skip
    assert "'seven' is not a port" in docker.run("scripts/docker/mlflow.sh", "seven").stderr


def test_jupyter_has_a_token_or_warns(docker):
    lab = ["exec", "-itd", "--env=JUPYTER_TOKEN", "mask_rcnn", "jupyter-lab", "--no-browser", "--port=8888",
           "--ip=0.0.0.0", "--allow-root"]  # fmt: skip
    words, _, token = docker.call("scripts/docker/jupyter.sh")
    assert words == lab
    assert re.fullmatch(r"[0-9a-f]{32}", token)
    assert token != docker.call("scripts/docker/jupyter.sh")[2], "made up anew each time"
    done = docker.run("scripts/docker/jupyter.sh", JUPYTER_TOKEN="mine")
    assert (done.stdout, done.stderr) == ("", "")
    assert json.loads(docker.log.read_text().splitlines()[-1]) == [lab, str(docker.folder), "mine"]
    done = docker.run("scripts/docker/jupyter.sh", JUPYTER_TOKEN="")
    assert "without a token" in done.stderr
    assert json.loads(docker.log.read_text().splitlines()[-1])[0] == [*lab, "--IdentityProvider.token="]


@pytest.mark.parametrize("name", ["build", "run", "attach", "exec", "stop", "tensorboard", "mlflow", "jupyter"])
def test_published_places_are_faces(docker, name):
    (docker.folder / ".env").touch()
    words = ["made_up_word"] if name in ("build", "run", "exec") else []
    ours = docker.call(f"scripts/docker/{name}.sh", *words, JUPYTER_TOKEN="a")
    assert docker.call(f"docker/{name}.sh", *words, JUPYTER_TOKEN="a") == ours


@pytest.mark.slow
@pytest.mark.extras
def test_what_tensorboard_sh_starts_serves_the_run(docker, tmp_path):
    """The command that docker is given, on this machine's loopback."""
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="tensorboard is not installed")
    writer = tensorboard.SummaryWriter(str(tmp_path / "runs" / "a" / "tensorboard"))
    writer.add_scalar("train/loss", 1.0, 1)
    writer.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = docker.call("scripts/docker/tensorboard.sh", port)[0][3:]
    server = subprocess.Popen([program(words[0]), *words[1:]], cwd=tmp_path, stdout=-3, stderr=-3)
    try:
        runs = []
        for _ in range(240):
            try:
                runs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs"))
            except OSError:
                assert server.poll() is None, "it ended"
            if runs:
                break
            time.sleep(0.5)
        assert runs == ["runs/a/tensorboard"]
    finally:
        server.kill()
        server.wait()
