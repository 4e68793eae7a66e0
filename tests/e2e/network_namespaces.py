"""Two hosts on one machine: network namespaces with a cable between them, on which the scripts run as on two nodes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SUBNET = "10.213.77"
PORT = 29533
PATIENCE_S = 300  # for whatever a test waits for; nothing is timed


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


def require_namespaces():
    """A skip that says what is missing."""
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need the program ip (apt-get install iproute2)")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")


class TwoHosts:
    """Two namespaces that reach each other, and nobody else.

    Args:
        folder: for what the programs on them print.
    """

    def __init__(self, folder):
        self.folder = folder
        self.names = [f"mrb{os.getpid()}n{node}" for node in (0, 1)]
        self.running = []

    def __enter__(self):
        cables = [f"mrb{os.getpid()}c{node}"[-15:] for node in (0, 1)]
        try:
            for name in self.names:
                ip("netns", "add", name)
            ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
            for node, (name, cable) in enumerate(zip(self.names, cables, strict=True)):
                ip("link", "set", cable, "netns", name, "name", "cable")
                ip("-n", name, "addr", "add", f"{SUBNET}.{node + 1}/24", "dev", "cable")
                for link in ("lo", "cable"):
                    ip("-n", name, "link", "set", link, "up")
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        return self

    def __exit__(self, *_):
        for program in self.running:
            kill_tree(program.pid)
            program.wait()
        for name in self.names:
            ip("netns", "del", name, check=False)

    def start(self, node, words, results, *, script="train.sh", **environment):
        """Run a script on a host; what it prints goes to a file in ``folder``."""
        own = {
            "PYTHON": sys.executable, "SKIP_SETUP": "1", "RESULTS": str(results), "GPU": "1", "NODE_RANK": str(node),
            "MASTER_ADDR": f"{SUBNET}.1", "MASTER_PORT": str(PORT), "GLOO_SOCKET_IFNAME": "cable",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = ["ip", "netns", "exec", self.names[node], "bash", str(REPOSITORY / "scripts" / script), *words]
        return self.run(command, own | environment)

    def run(self, command, environment):
        """Run a program beside the hosts."""
        output = self.folder / f"printed{len(self.running)}"
        with output.open("w") as file:
            program = subprocess.Popen(
                command, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        program.output = output
        self.running.append(program)
        return program

    def set_cable(self, state):
        """``up`` or ``down``, on both ends."""
        for name in self.names:
            ip("-n", name, "link", "set", "cable", state)

    def trainers(self, node):
        """The processes that train on a host: children of torchrun, not the workers of a loader."""
        pids = map(int, ip("netns", "pids", self.names[node]).stdout.split())
        return [pid for pid in pids if is_trainer(pid)]

    def kill_host(self, node):
        """Power off: everything on it ends at once, and nobody is told."""
        self.set_cable("down")
        for pid in ip("netns", "pids", self.names[node]).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not ip("netns", "pids", self.names[node]).stdout.split(), "the host to be empty")


def is_trainer(pid):
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        above = Path(f"/proc/{parent}/cmdline").read_bytes()
        return any(word.endswith(b"worker.py") for word in words[:3]) and b"scripts/launch.py" in above
    return False


def kill_tree(pid):
    """A process with all its children, which run in groups of their own."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGSTOP)  # so that it makes no new ones
        for child in children:
            kill_tree(int(child))
        os.kill(pid, signal.SIGKILL)


def wait_for(condition, what, *, programs=()):
    """Wait until a condition holds; a program that ends before it is a failure with what it printed."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        for program in programs:
            if program.poll() is not None:
                raise AssertionError(f"ended with {program.returncode} before {what}:\n{printed(program)}")
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE_S} s for {what}\n" + "\n".join(map(printed, programs)))
        time.sleep(0.05)


def printed(program):
    return program.output.read_text(errors="replace")[-6000:]


def finish(*programs, status=0):
    """All programs end by themselves with this status."""
    wait_for(lambda: all(program.poll() is not None for program in programs), "the end")
    for program in programs:
        assert program.returncode == status, printed(program)
