"""A process that uses files which may do anything, and reports what they did.

python -m tests.fuzz.jail FOLDER reads one JSON object a line, {"area", "path", ...}, and answers each with one line. It
has no more memory than it needs, and whatever a program could do to the world outside FOLDER ends in a report.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import subprocess
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0  # for one file; the machine may be busy
SPARE = 1500 << 20  # bytes of address space beyond what the warm process has
_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn",
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request",
    "http.client.connect", "ftplib.connect", "webbrowser.open", "os.kill", "os.putenv", "pickle.find_class",
    "shutil.rmtree", "ctypes.dlsym", "code.__new__", "sys.settrace",
)  # fmt: skip
_CHANGES_FILES = ("os.remove", "os.rename", "os.chmod", "os.chown", "os.link", "os.symlink", "os.mkdir", "os.rmdir")


class Guard:
    """An audit hook: writes down what must not happen, and stops it."""

    def __init__(self, folder: str) -> None:
        self.folder, self.escapes, self.active = os.path.realpath(folder), [], False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.active and (fault := self._fault(event, args)):
            self.active = False  # what follows happens while this is told
            self.escapes.append(fault)
            raise PermissionError(fault)

    def _fault(self, event: str, args: tuple[Any, ...]) -> str:
        if event in _FORBIDDEN:
            return f"{event} {args!r:.200}"
        if event == "exec":  # modules that are imported late are code of this program
            name = os.path.realpath(args[0].co_filename)
            own = (str(ROOT), sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix))
            return "" if name.startswith(own) or args[0].co_filename.startswith("<") else f"exec {name}"
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        writes = writes or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR))
        if (writes or event in _CHANGES_FILES) and isinstance(args[0], (str, bytes, os.PathLike)):
            place = os.path.realpath(os.fsdecode(args[0]))
            return "" if f"{place}/".startswith(f"{self.folder}/") or place == os.devnull else f"{event} {place}"
        return ""


def main(folder: str) -> None:
    """Answer until the input ends."""
    os.environ |= dict.fromkeys(("XDG_CACHE_HOME", "MASKRCNN_CACHE", "TMPDIR"), folder)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    import torch

    from maskrcnn_benchmark.apps.errors import USER_ERRORS, describe
    from tests.fuzz.uses import use

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    guard = Guard(folder)
    sys.addaudithook(guard)
    for line in sys.stdin:
        job = json.loads(line)
        if job.pop("warm", False):  # a sound file: what it takes is what every run takes
            with contextlib.suppress(*USER_ERRORS):
                use(**job)
            pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else 0
            if pages:
                resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE, resource.RLIM_INFINITY))
            answers.write('{"outcome": "warm"}\n')
            answers.flush()
            continue
        guard.escapes.clear()
        guard.active = True
        answer: dict[str, Any] = {"outcome": "used", "message": ""}
        try:
            use(**job)
        except MemoryError as error:
            answer = {"outcome": "crashed", "message": f"it takes more memory than it may: {error}"}
        except USER_ERRORS as error:
            answer = {"outcome": "named", "message": describe(error), "type": type(error).__name__}
        except BaseException as error:
            trace = "".join(traceback.format_exception(error)[-6:])
            answer = {"outcome": "crashed", "message": f"{type(error).__name__}: {error}"[:500], "trace": trace[-3000:]}
        guard.active = False
        if guard.escapes:
            answer = {"outcome": "escaped", "message": "; ".join(guard.escapes)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Jail:
    """The process from outside: one that hangs, dies or takes too much is replaced, and told.

    Args:
        folder: the only place where it may write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.warm = folder, []
        self.process: subprocess.Popen[str] | None = None

    def prepare(self, jobs: list[dict[str, Any]]) -> None:
        """Use sound files first, so that later ones import and open nothing new."""
        self.warm += jobs
        for job in jobs if self.process is not None else ():
            self._use_sound(job)

    def _use_sound(self, job: dict[str, Any]) -> None:
        answer = self._ask({**job, "warm": True})
        assert answer["outcome"] == "warm", f"{answer} {(self.folder / 'stderr').read_text()[-3000:]}"

    def _start(self) -> None:
        self.errors = (self.folder / "stderr").open("w")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", "OPENCV_LOG_LEVEL": "SILENT"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.jail", str(self.folder)],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=self.errors,
        )  # fmt: skip
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, args=(self.process, self.answers), daemon=True).start()
        for job in self.warm:
            self._use_sound(job)

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            answer = self.answers.get(timeout=SECONDS)
        except (queue.Empty, BrokenPipeError) as error:
            self.close()
            return {"outcome": "hung" if isinstance(error, queue.Empty) else "died", "message": ""}
        if answer:
            return json.loads(answer)
        status = self.process.wait()
        self.process = None
        return {"outcome": "died", "message": f"exit status {status}: {(self.folder / 'stderr').read_text()[-2000:]}"}

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Use one file; the answer's ``outcome`` is used, named, crashed, escaped, hung or died."""
        if self.process is None:
            self._start()
        start = time.monotonic()
        return {**self._ask(job), "seconds": time.monotonic() - start}

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.errors.close()


if __name__ == "__main__":
    main(sys.argv[1])
