"""Dockerfiles read, and their steps run without Docker: each RUN line on a copy-on-write copy of this machine's files.

An overlay over / stands for the base image, so what the steps do to the system, apt-get and useradd included, stays in
a folder of the test.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILES = [REPOSITORY / name for name in ("Dockerfile", "Dockerfile.cpu", "docker/MaskRCNN")]
# A data set that is drawn in a moment.
_SPLIT = "{{'name': 'shapes_{0}', 'factory': 'shapes', 'root': 'shapes', 'split': '{0}', 'num_images': 4}}"
TINY = f"[{_SPLIT.format('train')}, {_SPLIT.format('val')}]"


def program(name):
    """A linter beside this Python or in PATH, or a skip that names it."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (the extra dev brings those that pip has)")
    return found


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word in capitals, and the rest with continued lines joined."""

    word: str
    value: str


@dataclass
class Stage:
    """One stage: what it is built from, and its instructions without FROM."""

    base: str
    steps: list[Instruction] = field(default_factory=list)


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile; comments and empty lines are gone, also those between continued lines."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        word, _, value = line.strip().partition(" ")
        found.append(Instruction(word.upper(), re.sub(r"\s+", " ", value).strip()))
    return found


def stages(path: Path) -> tuple[dict[str, str], dict[str, Stage]]:
    """The arguments before the first FROM with their defaults, and the stages by name, the last one also as ""."""
    arguments: dict[str, str] = {}
    found: dict[str, Stage] = {}
    for step in parse(path.read_text(encoding="utf-8")):
        if step.word == "FROM":
            base, _, name = step.value.partition(" AS ")
            found[name] = found[""] = Stage(base)
        elif not found:
            assert step.word == "ARG", f"{step.word} before the first FROM"
            name, _, default = step.value.partition("=")
            arguments[name] = default
        else:
            found[""].steps.append(step)
    return arguments, found


def steps_of(path: Path, target: str = "") -> list[Instruction]:
    """All instructions from the base image to the end of the stage ``target``."""
    _, found = stages(path)
    stage = found[target]
    return (steps_of(path, stage.base) if stage.base in found else []) + stage.steps


def expand(text: str, variables: dict[str, str]) -> str:
    """``text`` with ${NAME} and $NAME in it replaced, as Docker does outside RUN."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: variables.get(match[1] or match[2], ""), text)


class Ignored:
    """What a .dockerignore leaves out; without exceptions (!), which ours does not have."""

    def __init__(self, text: str) -> None:
        self.patterns = [line for line in text.split("\n") if line and not line.startswith("#")]

    def __contains__(self, path: str) -> bool:
        """Whether the relative ``path``, or a folder above it, matches."""
        parents = [path, *map(str, Path(path).parents)]
        for pattern in self.patterns:
            if pattern.startswith("**/"):
                if any(fnmatch.fnmatchcase(part, pattern[3:]) for part in Path(path).parts):
                    return True
            elif any(fnmatch.fnmatchcase(each, pattern) and each.count("/") == pattern.count("/") for each in parents):
                return True
        return False


class Machine:
    """This machine's files as a base image; changes stay below ``folder``.

    Args:
        folder: an empty folder on a disk that an overlay can write to.
        environment: variables of the base image; those of pip, certificates and proxies are the machine's own.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("running a Dockerfile's steps needs root and the program unshare (util-linux)")
        self.upper, self.work, self.root = (folder / name for name in ("upper", "work", "root"))
        for each in (self.upper, self.work, self.root):
            each.mkdir()
        (self.upper / "root").mkdir()
        (self.upper / "root").chmod(0o755)  # where some keep their Python
        kept = re.compile(r"PIP_|SSL_|REQUESTS_CA|https?_proxy|no_proxy", flags=re.IGNORECASE)
        self.environment = {name: value for name, value in os.environ.items() if kept.match(name)}
        self.environment |= {"HOME": "/root", "PATH": os.environ["PATH"]} | environment
        self.arguments: dict[str, str] = {}
        self.folder, self.user = "/", "0:0"
        probe = self.run("true")
        if probe.returncode != 0:
            pytest.skip(f"no overlay can be mounted here: {probe.stderr.strip()}")

    def run(self, command: str, user: str | None = None, **environment: str) -> subprocess.CompletedProcess:
        """Runs a shell command in the image, in its folder and as its user or as ``user`` ("uid:gid")."""
        mount = (
            f"mount -t overlay overlay -o lowerdir=/,upperdir={self.upper},workdir={self.work} {self.root}"
            f" && mount --rbind /dev {self.root}/dev && mount -t proc proc {self.root}/proc"
            f' && exec chroot --userspec="$1" {self.root} /bin/sh -c "cd \\"$2\\" && $3"'
        )
        apart = ["unshare", "--mount", "--propagation", "private"]
        return subprocess.run(
            [*apart, "sh", "-c", mount, "sh", user or self.user, self.folder, command],
            env=self.environment | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500,
        )  # fmt: skip

    def copy(self, source: str, target: str, ignored: Ignored) -> None:
        """COPY of a file or folder of the repository."""
        names = [source]
        if source == ".":
            names = subprocess.check_output(
                ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, text=True
            ).split("\0")[:-1]
        for name in names:
            assert source == "." or name not in ignored, f"{name} is left out by .dockerignore"
            if name in ignored or not (REPOSITORY / name).is_file():
                continue
            place = Path(self.folder, target, name) if source == "." else Path(self.folder, target)
            place = self.upper / place.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, place)

    def build(self, steps: list[Instruction], arguments: dict[str, str]) -> list[str]:
        """Does every step in its order; returns the RUN lines that ran."""
        ignored = Ignored((REPOSITORY / ".dockerignore").read_text())
        ran = []
        for step in steps:
            variables = self.arguments | self.environment
            if step.word == "ARG":
                name, given, default = step.value.partition("=")
                if name in arguments or given:
                    self.arguments[name] = arguments.get(name, expand(default, variables))
            elif step.word == "ENV":
                for pair in re.findall(r"(\w+)=(\S+)", step.value):
                    self.environment[pair[0]] = expand(pair[1], variables)
            elif step.word == "WORKDIR":
                self.folder = str(Path(self.folder, expand(step.value, variables)))
                (self.upper / self.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif step.word == "COPY":
                self.copy(*step.value.split(), ignored)
            elif step.word == "USER":
                self.user = expand(step.value, variables)
            elif step.word == "RUN":
                done = self.run(step.value, **self.arguments)
                assert done.returncode == 0, f"{step.value}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
                ran.append(step.value)
            else:
                assert step.word in ("HEALTHCHECK", "CMD", "ENTRYPOINT"), f"{step.word} is not known here"
        return ran
