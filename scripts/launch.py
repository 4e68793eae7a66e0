"""torchrun for several nodes, which gives up on one that is cut off: by itself it would wait for a quarter of an hour.

python scripts/launch.py TORCHRUN_OPTION... TOOL ARGUMENT...
"""

from __future__ import annotations

import threading
import time

from torch.distributed.run import main

from maskrcnn_benchmark.utils.peers import limit_silence, peer_timeout_s

_LATER_S = 20  # than its processes, which then have said why


def watch_connections(timeout_s: int) -> None:
    """Let no connection of this process be silent for longer; they come and go, so they are looked at for ever."""
    while True:
        limit_silence(timeout_s)
        time.sleep(2)


if __name__ == "__main__":
    if peer_timeout_s() > 0:
        limit_s = peer_timeout_s() + _LATER_S
        threading.Thread(target=watch_connections, args=(limit_s,), name="connections", daemon=True).start()
    main()
