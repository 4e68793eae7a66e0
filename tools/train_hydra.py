"""Train, and sweep over settings, by Hydra. Example: python tools/train_hydra.py -m hparams.lr=0.01,0.02"""

from __future__ import annotations

from typing import Any

from maskrcnn_benchmark.apps.hydra_app import import_hydra, start
from maskrcnn_benchmark.utils.openmp import share_cores

hydra = import_hydra()


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(settings: Any) -> float | tuple[float, ...] | None:
    """One job; what it returns is what a sweeper maximises."""
    from maskrcnn_benchmark.apps.hydra_train import run_job  # here, since Tab starts this program too
    from maskrcnn_benchmark.config import cfg

    return run_job(settings, cfg)


if __name__ == "__main__":
    share_cores()
    from maskrcnn_benchmark.config import cfg

    start(main, cfg)
