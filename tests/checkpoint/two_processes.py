"""What test_download starts in each process: URL FOLDER; what it got goes to FOLDER/rank<N>."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from maskrcnn_benchmark.checkpoint.download import fetch
from maskrcnn_benchmark.utils import comm


def main(url, folder):
    comm.init_process_group(torch.device("cpu"))
    path = fetch(url)
    try:
        fetch(f"{url}.other#sha256={'0' * 64}")
        failure = "none"
    except ValueError as error:
        failure = f"ValueError: {error}"
    (folder / f"rank{comm.get_rank()}").write_text(f"{path}\n{failure}")
    comm.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
