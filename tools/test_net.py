"""Evaluate a detector. Example: python tools/test_net.py --config-file CONFIG OUTPUT_DIR /results"""

from maskrcnn_benchmark.apps.test import main, make_parser
from maskrcnn_benchmark.config import cfg

if __name__ == "__main__":
    main(make_parser().parse_args(), cfg)
