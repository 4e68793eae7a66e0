"""Notice that another node cannot be reached any more: its power is off, or a cable is out.

A process that dies closes its connections, and whoever waits for it is told. A node that is cut off closes nothing:
collectives wait for it until their time is over, which is long, because evaluation keeps the other processes waiting
too. So the first process keeps one more connection to each process of the other nodes, over which nothing is sent. The
kernels at its ends ask each other whether they are there, however busy their processes are.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import selectors
import socket
import stat
import sys
import threading
from collections.abc import Mapping

from maskrcnn_benchmark.utils import comm, exit_status

logger = logging.getLogger("maskrcnn_benchmark")

TIMEOUT_VARIABLE = "MASKRCNN_PEER_TIMEOUT"
_TIMEOUT_S = 40
_CONNECT_S = 20
_UNREACHABLE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)


def watch_peers() -> None:
    """End this process, with status 3, when a node cannot be reached for MASKRCNN_PEER_TIMEOUT seconds (40; 0: never).

    With one node, or where the kernel has no such limit for connections, nothing happens. Call it on all processes,
    after ``init_process_group``.

    Raises:
        ValueError: MASKRCNN_PEER_TIMEOUT is no number of seconds.
    """
    timeout_s = peer_timeout_s()
    is_needed = comm.get_world_size() > comm.get_local_world_size() and timeout_s > 0
    if not all(comm.all_gather(is_needed)):
        return
    connections = _meet(timeout_s)
    if connections:
        threading.Thread(target=_watch, args=(connections,), name="peers", daemon=True).start()


def peer_timeout_s() -> int:
    """Seconds without an answer after which a node counts as lost; 0 where nobody is to watch, or nobody can.

    Raises:
        ValueError: MASKRCNN_PEER_TIMEOUT is no number of seconds.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, str(_TIMEOUT_S))
    if not text.isdigit():
        raise ValueError(f"{TIMEOUT_VARIABLE} must be a whole number of seconds, 0 for never, got {text!r}")
    return int(text) if hasattr(socket, "TCP_USER_TIMEOUT") else 0  # Linux has that


def limit_silence(timeout_s: int) -> None:
    """Let all present connections of this process, whoever made them, break after so many seconds without an answer."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # it was closed in between, or is no connection
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                _limit_silence_of(os.dup(descriptor), timeout_s)


def _limit_silence_of(descriptor: int, timeout_s: int) -> None:
    """Set the limit of a connection over the internet's protocols, and close this descriptor of it."""
    with socket.socket(fileno=descriptor) as connection:
        is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM
        if is_tcp and connection.getpeername():
            _keep_asking(connection, timeout_s)


def _meet(timeout_s: int) -> dict[socket.socket, int]:
    """Connect the first process with those of the other nodes; returns connections with the ranks at their ends."""
    listener, place = None, None
    if comm.is_main_process():
        listener = socket.create_server(("", 0), backlog=comm.get_world_size())
        place = (os.environ["MASTER_ADDR"], listener.getsockname()[1], secrets.token_bytes(16))
    host, port, token = comm.broadcast(place)
    nodes = comm.all_gather(os.environ.get("GROUP_RANK", "0"))
    rank, connection = comm.get_rank(), None
    if nodes[rank] != nodes[0]:
        try:
            connection = socket.create_connection((host, port), timeout=_CONNECT_S)
            connection.sendall(token + rank.to_bytes(4, "little"))
        except OSError as error:
            logger.warning("Process %d cannot connect to %s:%d (%s): open it in the firewall", rank, host, port, error)
            connection = None
    num_connected = sum(comm.all_gather(connection is not None))
    found = {connection: 0} if connection is not None else {}
    if listener is not None:
        found = _accept(listener, token, num_connected)
    for each in found:
        each.settimeout(None)
        _keep_asking(each, timeout_s)
    return found


def _accept(listener: socket.socket, token: bytes, num_connected: int) -> dict[socket.socket, int]:
    """The connections that came with the token; whatever else knocked is turned away."""
    found: dict[socket.socket, int] = {}
    listener.settimeout(_CONNECT_S)
    with listener:
        while len(found) < num_connected:
            connection, _ = listener.accept()
            connection.settimeout(_CONNECT_S)
            greeting = b""
            with contextlib.suppress(OSError):
                greeting = connection.recv(len(token) + 4, socket.MSG_WAITALL)
            if secrets.compare_digest(greeting[: len(token)], token):
                found[connection] = int.from_bytes(greeting[len(token) :], "little")
            else:
                connection.close()
    return found


def _keep_asking(connection: socket.socket, timeout_s: int) -> None:
    interval_s = max(timeout_s // 4, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_s * 1000)


def _watch(connections: Mapping[socket.socket, int]) -> None:
    """Wait until a connection breaks, for ever; what a dead process closed is for others to tell of."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                connection = key.fileobj
                try:
                    connection.recv(1)
                except OSError as error:
                    if error.errno in _UNREACHABLE:
                        _leave(connections[connection], error)
                selector.unregister(connection)
                connection.close()


def _leave(rank: int, error: OSError) -> None:
    """End at once: the main thread may wait for the lost process, and would for long."""
    where = f"process {comm.get_rank()}: the node of process {rank} cannot be reached ({error.strerror})"
    sys.stderr.write(f"{where}, so this one ends; the same command goes on from the last checkpoint\n")
    sys.stderr.flush()
    logging.shutdown()
    os._exit(exit_status.LOST)
