"""Show what a model detects in a camera's pictures. Example: python demo/webcam.py MODEL.WEIGHT model_final.pth"""

from maskrcnn_benchmark.apps.webcam import main, make_parser
from maskrcnn_benchmark.config import cfg

if __name__ == "__main__":
    main(make_parser().parse_args(), cfg)
