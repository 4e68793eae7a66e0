"""Live code: a job that names a repository is done by the code of that repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from maskrcnn_benchmark.utils.files import write_atomically
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.protocol import ENV_FILE_VARIABLES, Environment, environment_file
from maskrcnn_benchmark.ymir.settings import JobSettings, read_settings
from maskrcnn_benchmark.ymir.values import read_keys
from maskrcnn_benchmark.ymir.variables import worker_variables

LIVE_VARIABLE = "MASKRCNN_YMIR_LIVE"
"""Set for live code, which is not to fetch itself."""
PROGRAMS = ("start.py", "ymir/start.py")
_SOURCES = (".cpp", ".cu", ".h", ".cuh")
REQUIREMENTS = "extra-requirements.txt"


@dataclass(frozen=True)
class LiveCommand:
    """What takes the place of this process.

    Args:
        words: program and arguments.
        environment: its variables.
        folder: it begins in.
    """

    words: Sequence[str]
    environment: dict[str, str]
    folder: str


def make_live_command(environment: Environment, settings: JobSettings) -> LiveCommand | None:
    """Fetch the code that a job names, with the packages that it needs.

    Args:
        environment: of the job.
        settings: git_url, git_branch, code_config and pypi_mirror are read.

    Returns:
        None where the job names no code, or this is that code.

    Raises:
        JobError: it cannot be fetched, or is no program for the platform.
    """
    url = settings.text("git_url")
    if not url or os.environ.get(LIVE_VARIABLE):
        return None
    folder = Path(environment.work_dir, "code")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(environment.work_dir, exist_ok=True)
    fetch(url, settings.text("git_branch"), folder)
    program = next((folder / name for name in PROGRAMS if (folder / name).is_file()), None)
    if program is None:
        raise JobError(ReturnCode.CONFIG, f"{url} has neither {' nor '.join(PROGRAMS)}, so it cannot be started")
    variables = worker_variables(os.environ, environment.work_dir, folder)
    variables.setdefault("PYTHONUSERBASE", os.path.join(environment.work_dir, "python"))
    variables[LIVE_VARIABLE] = "1"
    if not lend_kernels(Path(__file__).resolve().parents[2], folder):
        variables.pop("MASKRCNN_REQUIRE_EXT", None)  # the kernels in PyTorch must do
    if (folder / REQUIREMENTS).is_file():
        install(folder / REQUIREMENTS, settings.text("pypi_mirror"), variables)
    if settings.text("code_config"):
        path = write_merged(environment, folder)
        variables |= dict.fromkeys(ENV_FILE_VARIABLES, path)
    return LiveCommand([sys.executable, "-u", str(program)], variables, str(folder))


def fetch(url: str, revision: str, folder: Path) -> None:
    """Clone a repository and check a revision out.

    Raises:
        JobError: there is no such repository or revision.
    """
    if not revision:
        raise JobError(ReturnCode.CONFIG, f"git_branch is empty: name the commit id or the tag of {url} to run")
    if url.startswith("-") or revision.startswith("-"):
        raise JobError(ReturnCode.CONFIG, f"git_url {url!r} and git_branch {revision!r} must not begin with -")
    done = _git("clone", "--filter=blob:none", "--no-checkout", "--", url, str(folder))
    if done.returncode:
        raise JobError(ReturnCode.NETWORK, f"git_url {url} cannot be cloned: {_last_line(done.stderr)}")
    at = ("-C", str(folder))
    is_branch = _git(*at, "rev-parse", "--verify", "--quiet", f"refs/remotes/origin/{revision}").returncode == 0
    is_tag = _git(*at, "rev-parse", "--verify", "--quiet", f"refs/tags/{revision}").returncode == 0
    if is_branch and not is_tag:
        sys.stderr.write(f"git_branch {revision} is a branch, which may be other code tomorrow; name a commit or tag\n")
        revision = f"origin/{revision}"
    done = _git(*at, "checkout", "--quiet", "--detach", revision, "--")
    if done.returncode:
        raise JobError(
            ReturnCode.CONFIG, f"git_branch {revision} is no commit or tag of {url}: {_last_line(done.stderr)}"
        )
    commit = _git(*at, "rev-parse", "HEAD").stdout.strip()
    sys.stdout.write(f"Running {url} at {commit}\n")
    sys.stdout.flush()


def lend_kernels(own: Path, folder: Path) -> bool:
    """Give a clone of this program the compiled kernels of the image, where it has the same sources of them.

    Args:
        own: folder of this program.
        folder: of the clone.

    Returns:
        Whether it has them now.
    """
    kernels, package = sorted((own / "maskrcnn_benchmark").glob("_C*.so")), folder / "maskrcnn_benchmark"
    if not kernels or not package.is_dir() or _sources(own) != _sources(folder):
        return False
    for path in kernels:
        shutil.copy2(path, package)
    return True


def _sources(folder: Path) -> dict[str, bytes]:
    """The sources of the kernels, by their names."""
    paths = (path for path in sorted((folder / "csrc").rglob("*")) if path.suffix in _SOURCES)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def install(requirements: Path, mirror: str, variables: dict[str, str]) -> None:
    """Install the packages that the code needs beside the image's own.

    Raises:
        JobError: that fails.
    """
    words = [sys.executable, "-m", "pip", "install", "--no-input", "-r", str(requirements)]
    done = subprocess.run(words + (["-i", mirror] if mirror else []), env=variables)
    if done.returncode:
        raise JobError(
            ReturnCode.NETWORK,
            f"pip cannot install {requirements.name} (status {done.returncode}; the lines above say why); set "
            "pypi_mirror where the package index cannot be reached",
        )


def write_merged(environment: Environment, folder: Path) -> str:
    """Write config.yaml over the code's own code_config, and an env.yaml that names the result; give the latter.

    Raises:
        JobError: a file cannot be read.
    """
    values = read_settings(environment.input.config_file, root=str(folder)).values
    config_file, env_file = (os.path.join(environment.work_dir, name) for name in ("config.yaml", "env.yaml"))
    tree = read_keys(environment_file(), "environment file")
    tree["input"] = {**asdict(environment.input), "config_file": config_file}
    for path, content in ((config_file, dict(values)), (env_file, tree)):
        text = yaml.safe_dump(content, allow_unicode=True)
        write_atomically(path, lambda file, text=text: file.write(text.encode()))
    return env_file


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(["git", *words], env=variables, capture_output=True, text=True, errors="replace")
    except FileNotFoundError as error:
        raise JobError(ReturnCode.OTHER, "git is not installed in this image, so git_url cannot be used") from error


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "git says nothing"
