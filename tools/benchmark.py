"""Measure speed. Example: python tools/benchmark.py --config-file configs/e2e_mask_rcnn_R_50_FPN_1x.yaml --synthetic"""

from maskrcnn_benchmark.apps.benchmark import main, make_parser
from maskrcnn_benchmark.config import cfg

if __name__ == "__main__":
    main(make_parser().parse_args(), cfg)
