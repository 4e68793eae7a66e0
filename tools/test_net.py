"""Evaluate a detector. Example: python tools/test_net.py --config-file CONFIG OUTPUT_DIR /results"""

from maskrcnn_benchmark.apps.options.test_net import make_parser
from maskrcnn_benchmark.utils.openmp import share_cores

if __name__ == "__main__":
    args = make_parser().parse_args()
    share_cores()
    from maskrcnn_benchmark.apps.test import main  # here: --help needs no torch
    from maskrcnn_benchmark.config import cfg

    main(args, cfg)
