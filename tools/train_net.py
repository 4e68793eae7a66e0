"""Train a detector. Example: python tools/train_net.py --config-file configs/e2e_mask_rcnn_R_50_FPN_1x.yaml"""

from maskrcnn_benchmark.apps.options.train_net import make_parser
from maskrcnn_benchmark.utils.openmp import share_cores

if __name__ == "__main__":
    args = make_parser().parse_args()
    share_cores()
    from maskrcnn_benchmark.apps.train import main  # here: --help needs no torch
    from maskrcnn_benchmark.config import cfg

    main(args, cfg)
