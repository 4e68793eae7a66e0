"""Detect on pictures. Example: python tools/predict.py photo.jpg folder/ "more/*.png" --weights results"""

import sys

from maskrcnn_benchmark.apps.options.predict import make_parser
from maskrcnn_benchmark.utils.openmp import share_cores

if __name__ == "__main__":
    args = make_parser().parse_args()
    share_cores()
    from maskrcnn_benchmark.apps.predict_files import main  # here: --help needs no torch

    sys.exit(main(args))
