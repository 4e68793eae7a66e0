"""Detect on pictures. Example: python tools/predict.py photo.jpg folder/ "more/*.png" --weights results"""

import sys

from maskrcnn_benchmark.apps.predict_files import main, make_parser

if __name__ == "__main__":
    sys.exit(main(make_parser().parse_args()))
