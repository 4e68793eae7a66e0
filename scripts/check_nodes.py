"""Whether this node can meet the others; prints the address by which they reach it, and whether it is where all meet.

python scripts/check_nodes.py MASTER PORT NODE_RANK         NODE_RANK may be empty
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import time


def main(master: str, port: int, node_rank: str) -> str:
    """One line for choose_nodes in nodes_lib.sh: ``ADDRESS True|False``.

    Args:
        master: name or address of the node where all meet.
        port: where it listens.
        node_rank: of this node, "" where nobody numbers them: then the owner of ``master`` is node 0.

    Raises:
        ValueError: the nodes cannot meet there, with the reason and the remedy.
    """
    try:
        family, place = _resolve(master, port)
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"MASTER_ADDR {master} cannot be resolved on this node ({socket.gethostname()}); give the address of the "
            "first node instead of its name, or add the name to /etc/hosts"
        ) from error
    owned = _try_to_listen(family, place)
    if node_rank == "0" and owned == errno.EADDRNOTAVAIL:
        raise ValueError(
            f"NODE_RANK is 0, but MASTER_ADDR {master} is no address of this node ({socket.gethostname()}); it names "
            "node 0, the same on every node"
        )
    is_host = node_rank == "0" if node_rank else owned != errno.EADDRNOTAVAIL
    if is_host and owned == errno.EADDRINUSE:
        raise ValueError(
            f"port {port} of {master} is in use, by another job or one that has not ended; set MASTER_PORT to another "
            "port on every node"
        )
    if is_host and owned == errno.EACCES:
        raise ValueError(f"port {port} may not be opened by this user; set MASTER_PORT to one above 1023 on every node")
    return f"{_own_address(family, place)} {is_host}"


def _resolve(master: str, port: int) -> tuple[int, tuple]:
    """Family and address of the meeting place. In Kubernetes the name of a pod comes when the pod is there."""
    patience_s = 300 if "KUBERNETES_SERVICE_HOST" in os.environ else 0
    deadline = time.monotonic() + patience_s
    while True:
        try:
            family, _, _, _, place = socket.getaddrinfo(master, port, type=socket.SOCK_STREAM)[0]
            return family, place
        except OSError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(1)


def _try_to_listen(family: int, place: tuple) -> int:
    """0 where this node can listen there, or the error number that says why not."""
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(place)
            attempt.listen()
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def _own_address(family: int, place: tuple) -> str:
    """The address of this node on the way to the meeting place; asking for it sends nothing."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as way:
        way.connect(place)
        return way.getsockname()[0]
    return socket.getfqdn()


if __name__ == "__main__":
    try:
        print(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
    except ValueError as error:
        sys.exit(str(error))
