"""Nothing runs that comes from a file, and nothing goes over a network, unless somebody asked for it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.apps.tiny_run import tiny_run

__all__ = ["tiny_run"]  # a fixture

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("maskrcnn_benchmark", "tools", "scripts", "example", "benchmarks", "docs", "docker", "ymir")
# Calls that run what they are given, or read a format that can.
NAMES = {"eval", "exec", "compile", "__import__", "execfile", "breakpoint", "input"}
CALLS = {
    "os.system", "os.popen", "os.execv", "os.execve", "os.execvp", "os.execl", "os.execlp", "os.spawnv", "os.spawnl",
    "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput", "pty.spawn",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.loads", "cPickle.loads", "dill.load", "dill.loads",
    "cloudpickle.load", "cloudpickle.loads", "joblib.load", "marshal.load", "marshal.loads", "shelve.open",
    "pd.read_pickle", "pandas.read_pickle",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all",
    "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load", "torch.serialization.add_safe_globals",
    "tempfile.mktemp", "shutil.unpack_archive", "runpy.run_path", "imp.load_source", "code.interact",
    "xml.sax.parse", "lxml.etree.parse",
}  # fmt: skip
METHODS = {"extractall", "exec_module", "load_module"}
NETWORK = {"urllib.request", "http.client", "socket", "requests", "ftplib", "smtplib", "telnetlib", "httpx", "aiohttp"}
# Where one of these is what the module is for: the way from the repository's root -> what may stand there, and why.
ALLOWED = {
    "maskrcnn_benchmark/checkpoint/unpickle.py": {"pickle.Unpickler": "the base of the reader without globals"},
    "maskrcnn_benchmark/config/catalog.py": {"exec_module": "the Python file that PATHS_CATALOG names"},
    "maskrcnn_benchmark/utils/imports.py": {"exec_module": "a face of the published function, called by nobody here"},
    "maskrcnn_benchmark/checkpoint/web.py": {"urllib.request": "downloads", "http.client": "downloads"},
    "maskrcnn_benchmark/checkpoint/download.py": {"http.client": "its errors"},
    "maskrcnn_benchmark/checkpoint/lock.py": {"socket": "the name of this machine"},
    "maskrcnn_benchmark/utils/peers.py": {"socket": "connections that the processes of a run have already"},
    "scripts/check_nodes.py": {"socket": "whether the nodes of a run reach one another"},
    "scripts/worker.py": {"runpy.run_path": "the tool that the command line names"},
    "maskrcnn_benchmark/ymir/start.py": {"os.execve": "live code, which the user of the platform names"},
    "ymir/start.py": {"runpy.run_path": "tools/ymir_start.py of this repository"},
    "scripts/compile_cuda.py": {"exec_module": "setup.py of this repository"},
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    """All Python files but the tests, by their way from the root."""
    paths = [*REPOSITORY.glob("*.py"), *(path for name in FOLDERS for path in (REPOSITORY / name).rglob("*.py"))]
    for path in sorted(paths):
        yield path.relative_to(REPOSITORY).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def dotted(node: ast.expr) -> str:
    """os.path.join of the expression os.path.join; only the end where it begins with something else than a name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([*([node.id] if isinstance(node, ast.Name) else [""]), *reversed(parts)])


def findings(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and what stands there, of all that could run what is in a file or reach a network."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None)
            for alias in node.names:
                full = f"{module}.{alias.name}" if module else alias.name
                if {full, module} & NETWORK:
                    yield node.lineno, full if full in NETWORK else str(module)
                if full in CALLS:
                    yield node.lineno, full
        elif isinstance(node, ast.ClassDef):
            yield from ((node.lineno, dotted(base)) for base in node.bases if dotted(base) in CALLS)
        elif isinstance(node, ast.Call):
            called = dotted(node.func)
            words = {word.arg: word.value for word in node.keywords}
            if called in NAMES or called in CALLS:
                yield node.lineno, called
            if called.rpartition(".")[2] in METHODS and "." in called:
                yield node.lineno, called.rpartition(".")[2]
            if called == "torch.load" and not _is_true(words.get("weights_only")):
                yield node.lineno, "torch.load without weights_only=True"
            if _is_true(words.get("shell")) or ("shell" in words and not _is_constant(words["shell"], False)):
                yield node.lineno, f"{called} with shell"
            if "allow_pickle" in words and not _is_constant(words["allow_pickle"], False):
                yield node.lineno, f"{called} with allow_pickle"


def _is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_true(node: ast.expr | None) -> bool:
    return node is not None and _is_constant(node, True)


def test_nothing_in_the_tree_runs_what_is_in_a_file() -> None:
    wrong, used = [], set()
    for name, tree in sources():
        for line, what in findings(name, tree):
            if what in ALLOWED.get(name, {}):
                used.add((name, what))
            else:
                wrong.append(f"{name}:{line}: {what}")
    assert wrong == []
    assert used == {(name, what) for name, reasons in ALLOWED.items() for what in reasons}, "a reason without its case"


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')", "exec(x)", "__import__('os')", "import os\nos.system(x)", "import pickle\npickle.loads(x)",
        "from pickle import loads", "from os import system", "import yaml\nyaml.load(x, Loader=yaml.Loader)",
        "import torch\ntorch.load(x)", "import torch\ntorch.load(x, weights_only=False)",
        "import torch\ntorch.load(x, weights_only=flag)", "import subprocess\nsubprocess.run(x, shell=True)",
        "import subprocess\nsubprocess.run(x, shell=flag)", "import numpy\nnumpy.load(x, allow_pickle=True)",
        "archive.extractall()", "import requests", "from urllib.request import urlopen", "import urllib.request as web",
        "import pickle\nclass A(pickle.Unpickler): pass", "spec.loader.exec_module(m)", "import shelve\nshelve.open(x)",
    ],
)  # fmt: skip
def test_the_search_finds_it(text: str) -> None:
    assert list(findings("x.py", ast.parse(text)))


def test_the_search_lets_sound_code_pass() -> None:
    text = "torch.load(x, weights_only=True)\nsubprocess.run([a, b])\nmodel.eval()\nre.compile(x)\ntorch.compile(y)"
    assert list(findings("x.py", ast.parse(text))) == []


# An audit hook sees what every way to a network, or to another program, has to pass.
ALONE = """
import socket, sys
def hook(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.bind") and args[0].family == socket.AF_UNIX:
        return  # between the processes of a loader
    if event == "socket.bind" and args[1][0] in ("::1", "127.0.0.1"):
        return  # a library asks whether this machine knows IPv6
    if event in {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname",
                 "os.system", "os.exec", "os.posix_spawn"}:
        sys.stderr.write(f"FORBIDDEN {event} {args}\\n")
        raise ConnectionRefusedError(f"FORBIDDEN {event}")
sys.addaudithook(hook)
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(tool: str, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A tool whose every step towards a network is an error."""
    command = [sys.executable, "-c", ALONE, str(REPOSITORY / "tools" / tool), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "MASKRCNN_CACHE": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_training_evaluation_and_prediction_use_no_network(tiny_run) -> None:
    trained = alone("train_net.py", tiny_run.command(), tiny_run.folder)  # which evaluates at its end
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert "FORBIDDEN" not in trained.stderr
    pictures = sorted(map(str, tiny_run.data.root.glob("*.jpg")))[:2]
    words = ["--weights", str(tiny_run.output), "--output", str(tiny_run.folder / "drawn"), *pictures]
    predicted = alone("predict.py", words, tiny_run.folder)
    assert predicted.returncode == 0, predicted.stderr[-3000:]
    assert "FORBIDDEN" not in predicted.stderr


ASKING = ["catalog://ImageNetPretrained/MSRA/R-50", pytest.param("https://example.org/w.pth", marks=pytest.mark.slow)]


@pytest.mark.parametrize("weight", ASKING)
def test_asking_for_weights_is_asking_for_the_network(tiny_run, weight: str) -> None:
    """And where there is none, the sentence names the file to put there and how to do without."""
    done = alone("train_net.py", tiny_run.command(keys={"MODEL.WEIGHT": weight}), tiny_run.folder)
    assert done.returncode == 2
    error = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "FORBIDDEN socket.getaddrinfo" in done.stderr, "it was asked for, so it is tried"
    assert "put the file at" in error
    assert str(tiny_run.folder / "weights") in error
    assert "MODEL.WEIGHT ''" in error


@pytest.mark.slow
def test_a_folder_of_a_stranger_runs_nothing(tiny_run) -> None:
    """config.yml beside a checkpoint may name a Python file; prediction does not run it."""
    tiny_run.train("--skip-test")
    evil = tiny_run.output / "catalog.py"
    evil.write_text("open('pwned', 'w')\n")
    path = tiny_run.output / "model_final.pth"
    data = torch.load(path, weights_only=True)
    config = (tiny_run.output / "config.yml").read_text()
    (tiny_run.output / "config.yml").write_text(
        "\n".join(
            f"PATHS_CATALOG: {evil}" if line.startswith("PATHS_CATALOG") else line for line in config.splitlines()
        )
    )
    for given in (data, {key: value for key, value in data.items() if key != "config"}):
        if "config" in given:
            given["config"] = (tiny_run.output / "config.yml").read_text()
        torch.save(given, path)
        picture = str(next(tiny_run.data.root.glob("*.jpg")))
        words = ["--weights", str(path), "--output", str(tiny_run.folder / "drawn"), picture]
        done = alone("predict.py", words, tiny_run.folder)
        assert done.returncode == 0, done.stderr[-2000:]
        assert not (tiny_run.folder / "pwned").exists()
