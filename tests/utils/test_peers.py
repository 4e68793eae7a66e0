"""The watch over other nodes; nodes that are really cut off are in tests/e2e/test_two_nodes.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from maskrcnn_benchmark.utils.peers import limit_silence, watch_peers

# Two processes that say they are on nodes of their own; the second one leaves first, as processes may.
RUN = """
import sys, threading, time, torch
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.peers import limit_silence, watch_peers
comm.init_process_group(torch.device("cpu"))
watch_peers()
is_watching = [thread.name for thread in threading.enumerate()].count("peers")
print(comm.all_gather(is_watching), flush=True)
time.sleep(1 - comm.get_rank())
"""

# A connection that says what the kernel says of one whose other end does not answer.
CUT = """
import errno, socket
from maskrcnn_benchmark.utils import peers
class Cut(socket.socket):
    def recv(self, size):
        raise OSError({number}, "as the kernel says")
ends = socket.socketpair()
cut = Cut(ends[0].family, ends[0].type, 0, ends[0].detach())
ends[1].send(b"x")
peers._watch({{cut: 5}})
"""


def start_both(**environment):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no-python"]
    # The launcher's environment says one node; the processes are told of two.
    program = f"import os; os.environ.update(GROUP_RANK=os.environ['RANK'], LOCAL_WORLD_SIZE='1')\n{RUN}"
    return subprocess.run(
        [*launcher, sys.executable, "-c", program],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's time limit for connections is Linux's")
@pytest.mark.parametrize(
    ("timeout_s", "watching"), [("40", "[1, 1]"), pytest.param("0", "[0, 0]", marks=pytest.mark.slow)]
)
def test_each_end_watches_and_an_orderly_end_is_none_of_its_business(timeout_s, watching):
    done = start_both(MASKRCNN_PEER_TIMEOUT=timeout_s)
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace("\n", "") == 2 * watching  # two processes write, at the same time perhaps


@pytest.mark.parametrize(
    ("number", "status"), [("errno.ETIMEDOUT", 3), ("errno.EHOSTUNREACH", 3), ("errno.ECONNRESET", 0)]
)
def test_only_a_node_that_does_not_answer_ends_the_process(number, status):
    done = subprocess.run([sys.executable, "-c", CUT.format(number=number)], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert ("the node of process 5 cannot be reached (as the kernel says)" in done.stderr) == (status == 3)


def test_the_time_is_a_number(monkeypatch):
    monkeypatch.setenv("MASKRCNN_PEER_TIMEOUT", "soon")
    with pytest.raises(ValueError, match=r"MASKRCNN_PEER_TIMEOUT must be a whole number of seconds.*'soon'"):
        watch_peers()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's time limit for connections is Linux's")
def test_connections_of_others_get_the_limit_too():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as one:
        other, _ = listener.accept()
        with other, socket.socketpair()[0] as unrelated:
            before = set(os.listdir("/proc/self/fd"))
            limit_silence(44)
            assert set(os.listdir("/proc/self/fd")) == before
            for end in (one, other):
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 44000
                assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert end.gettimeout() is None
            assert unrelated.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        one.sendall(b"x")  # it was not closed
