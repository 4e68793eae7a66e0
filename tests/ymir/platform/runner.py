"""Runs the executor on the folders of a task as YMIR's container does, and watches its progress."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.ymir.platform import monitor
from tests.ymir.platform.producer import Job

REPOSITORY = Path(__file__).resolve().parents[3]
LOG = "ymir-executor-out.log"
STRANGER = 12345  # a user without an entry in /etc/passwd
Interrupt = Callable[[monitor.Record], int | None]
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


def run(
    job: Job,
    *,
    command: Sequence[str] | None = None,
    program: Path = REPOSITORY,
    timeout: float = 500,
    shown: Sequence[Path] = (),
    room: str = "",
    interrupt: Interrupt | None = None,
    **environment: str,
) -> Run:
    """Starts the executor and waits for its end.

    /in is read-only and HOME cannot be written. Where the machine allows it, the user is one whom nobody knows, who may
    write below /out and in the folder for temporary files alone; elsewhere the modes of /in's files stand for that.

    Args:
        command: what is started in ``program``; default: the executor's starter.
        program: the folder with the executor.
        shown: further folders that the container sees; they become the user's own.
        room: the size of /out, such as "9m", where it is a disk of its own; needs ``can_be_a_stranger``.
        interrupt: called with each new record; a signal that it returns is sent.
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
        command = _as_a_stranger(job, command, program, [temporary, *shown], room)
    log = job.target / LOG
    begin = time.monotonic()
    watch = monitor.Watch(job.target / "monitor.txt")
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=program, env=variables, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        with watch:
            status = _wait(process, watch, timeout, interrupt)
    text = log.read_text(encoding="utf-8", errors="replace")
    assert watch.faults == [], f"{watch.faults}\n{text[-3000:]}"
    assert watch.records, f"monitor.txt was never written\n{text[-3000:]}"
    monitor.check_sequence(watch.records, job.task_id)
    return Run(job, status, text, watch.records, time.monotonic() - begin)


def _wait(process: subprocess.Popen, watch: monitor.Watch, timeout: float, interrupt: Interrupt | None) -> int:
    """Until the executor ends; whatever happens, nothing of it stays behind."""
    end = time.monotonic() + timeout
    seen = 0
    try:
        while process.poll() is None:
            assert time.monotonic() < end, f"the executor did not end within {timeout} s"
            if interrupt is not None and len(watch.records) > seen:
                seen = len(watch.records)
                number = interrupt(watch.records[-1])
                if number is not None:
                    process.send_signal(number)
                    interrupt = None
            time.sleep(0.02)
        return process.returncode
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _take_rights_away(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)


def _as_a_stranger(job: Job, command: list[str], program: Path, owned: list[Path], room: str) -> list[str]:
    """The command with a read-only mount of /in, as a user without any right."""
    for place in (job.target, *owned):
        for path in [place, *place.rglob("*")]:
            os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    source, target = shlex.quote(str(job.source)), shlex.quote(str(job.target))
    script = [
        "set -e", "mount -t tmpfs none /mnt", f"mount --bind {source} {source}", f"mount -o remount,bind,ro {source}",
        *_doors([Path(sys.base_prefix), Path(sys.prefix), job.folder, program, *owned]),
    ]  # fmt: skip
    start = f'setpriv --reuid={STRANGER} --regid={STRANGER} --clear-groups --inh-caps=-all "$@"'
    if room:  # what lies on the small disk is seen outside when all is over
        script += [
            f"mkdir /mnt/out && mount --bind {target} /mnt/out",
            f"mount -t tmpfs -o size={room},mode=777 none {target} && cp -a /mnt/out/. {target} && rm {target}/{LOG}",
            f"status=0; {start} || status=$?",
            # In one piece, for it is being watched.
            f"cp -a {target}/monitor.txt /mnt/out/.monitor && mv /mnt/out/.monitor /mnt/out/monitor.txt",
            f"rm {target}/monitor.txt && cp -a {target}/. /mnt/out", "exit $status",
        ]  # fmt: skip
    else:
        script.append(f"exec {start}")
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script), "sh", *command]


def _doors(needed: list[Path]) -> list[str]:
    """Shell commands that hide each folder that only root may enter by an open one with what is needed below it."""
    barriers: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(each.resolve() for each in needed):
        closed = next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)
        if closed is not None:
            barriers.setdefault(closed, []).append(path)
    lines = []
    for number, (closed, paths) in enumerate(barriers.items()):
        held = [(f"/mnt/{number}-{index}", shlex.quote(str(path))) for index, path in enumerate(paths)]
        lines += [f"mkdir {place}; mount --rbind {path} {place}" for place, path in held]
        lines += [f"mkdir -m 755 /mnt/{number}; mount --bind /mnt/{number} {shlex.quote(str(closed))}"]
        lines += [f"mkdir -p {path}; mount --rbind {place} {path}" for place, path in held]
    return [each for line in lines for each in line.split("; ")]
