"""Train under torchrun, by hand or by an agent of ClearML.

Example: python tools/clearml_train.py --config configs/e2e_mask_rcnn_R_50_FPN_1x.yaml --standalone --nproc_per_node 2
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # an agent's clone is not installed

from maskrcnn_benchmark.apps.clearml_options import make_parser
from maskrcnn_benchmark.utils.openmp import share_cores

if __name__ == "__main__":
    make_parser().parse_args()  # --help needs no torch; what counts is read again, since ClearML may change it
    share_cores()
    from maskrcnn_benchmark.apps.clearml_train import main
    from maskrcnn_benchmark.config import cfg

    main(cfg)
