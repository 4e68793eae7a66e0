"""Runs the executor on the folders of a task as YMIR's container does, and watches its progress."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.ymir.platform import monitor
from tests.ymir.platform.producer import Job

REPOSITORY = Path(__file__).resolve().parents[3]
STRANGER = 12345  # a user without an entry in /etc/passwd
KEPT_VARIABLES = ("PATH", "LANG", "OMP_NUM_THREADS", "SSL_CERT_FILE", "COVERAGE_PROCESS_START")


@dataclass
class Run:
    """A task that has ended: its exit status, what it printed, and the states of its monitor.txt."""

    job: Job
    status: int
    log: str
    records: list[monitor.Record]
    seconds: float

    @property
    def last(self) -> monitor.Record:
        return self.records[-1]


def can_be_a_stranger() -> bool:
    """Whether this machine lets the tests mount and change users."""
    if os.geteuid() != 0 or not all(shutil.which(name) for name in ("unshare", "setpriv", "mount")):
        return False
    probe = ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def run(job: Job, *, command: Sequence[str] | None = None, program: Path = REPOSITORY, timeout: float = 500,
        **environment: str) -> Run:  # fmt: skip
    """Starts the executor and waits for its end.

    /in is read-only and HOME cannot be written. Where the machine allows it, the user is one whom nobody knows, who may
    write below /out and in the folder for temporary files alone; elsewhere the modes of /in's files stand for that.

    Args:
        command: what is started in ``program``; default: the executor's starter.
        program: the folder with the executor.
        environment: further variables.
    """
    command = list(command or [sys.executable, "tools/ymir_start.py"])
    temporary = job.folder / "tmp"
    temporary.mkdir(exist_ok=True)
    variables = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    variables |= {
        "HOME": "/nonexistent", "TMPDIR": str(temporary), "YMIR_ENV_FILE": str(job.source / "env.yaml"),
        "PYTHONDONTWRITEBYTECODE": "1",
    } | environment  # fmt: skip
    _take_rights_away(job.source)
    if can_be_a_stranger():
        command = _as_a_stranger(job, command, program, temporary)
    log = job.target / "ymir-executor-out.log"
    begin = time.monotonic()
    with monitor.Watch(job.target / "monitor.txt") as watch, log.open("wb") as output:
        done = subprocess.run(command, cwd=program, env=variables, stdin=subprocess.DEVNULL,
                              stdout=output, stderr=subprocess.STDOUT, timeout=timeout)  # fmt: skip
    text = log.read_text(encoding="utf-8", errors="replace")
    assert watch.faults == [], f"{watch.faults}\n{text[-3000:]}"
    monitor.check_sequence(watch.records, job.task_id)
    return Run(job, done.returncode, text, watch.records, time.monotonic() - begin)


def _take_rights_away(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)


def _as_a_stranger(job: Job, command: list[str], program: Path, temporary: Path) -> list[str]:
    """The command with a read-only mount of /in, as a user without any right."""
    for place in (job.target, temporary):
        for path in [place, *place.rglob("*")]:
            os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    source = shlex.quote(str(job.source))
    script = [
        "set -e", f"mount --bind {source} {source}", f"mount -o remount,bind,ro {source}",
        *_doors([Path(sys.base_prefix), Path(sys.prefix), job.folder, program]),
        f'exec setpriv --reuid={STRANGER} --regid={STRANGER} --clear-groups --inh-caps=-all "$@"',
    ]  # fmt: skip
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script), "sh", *command]


def _doors(needed: list[Path]) -> list[str]:
    """Shell commands that hide each folder that only root may enter by an open one with what is needed below it."""
    barriers: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(each.resolve() for each in needed):
        closed = next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)
        if closed is not None:
            barriers.setdefault(closed, []).append(path)
    lines = ["mount -t tmpfs none /mnt"]
    for number, (closed, paths) in enumerate(barriers.items()):
        held = [(f"/mnt/{number}-{index}", shlex.quote(str(path))) for index, path in enumerate(paths)]
        lines += [f"mkdir {place}; mount --rbind {path} {place}" for place, path in held]
        lines += [f"mkdir -m 755 /mnt/{number}; mount --bind /mnt/{number} {shlex.quote(str(closed))}"]
        lines += [f"mkdir -p {path}; mount --rbind {place} {path}" for place, path in held]
    return [each for line in lines for each in line.split("; ")]
