"""What every phase of a job is given."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.launch import get_local_rank
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.protocol import Environment
from maskrcnn_benchmark.ymir.settings import JobSettings

_TIMEOUT = 7200.0  # seconds that processes wait for the first one, which reads the data set


@dataclass(frozen=True)
class Job:
    """One job in one of its processes.

    Args:
        environment: paths and tasks.
        settings: of the user.
        defaults: the network's config tree with its defaults; stays as it is.
        root: folder of the code.
        device: where this process computes.
    """

    environment: Environment
    settings: JobSettings
    defaults: CfgNode
    root: str
    device: torch.device

    def work_path(self, *parts: str) -> str:
        """A path below the folder of what is no result."""
        return os.path.join(self.environment.work_dir, *parts)

    def share(self, items: list[str]) -> list[str]:
        """Every n-th of them, for n processes."""
        return items[comm.get_rank() :: comm.get_world_size()]


def choose_device(settings: JobSettings) -> torch.device:
    """The device of this process.

    Raises:
        JobError: a GPU was promised that is not there.
    """
    ids = settings.gpu_ids
    if ids is None:
        ids = [0] if torch.cuda.is_available() else []
    if not ids:
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = ids[0] if len(ids) == 1 else get_local_rank()
    if max(index, len(ids) - 1) >= count:
        raise JobError(
            ReturnCode.NO_GPU,
            f"the job is to use {len(ids)} GPU(s) (gpu_id {','.join(map(str, ids))}), but torch {torch.__version__} "
            f"finds {count}; start the container with its GPUs, or set gpu_count to 0 for the CPU",
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def join_processes(device: torch.device) -> None:
    """Meet the other processes of the job."""
    comm.init_process_group(device, timeout_seconds=_TIMEOUT)
