"""Show what a model detects in a camera's pictures. Example: python demo/webcam.py MODEL.WEIGHT model_final.pth"""

from maskrcnn_benchmark.apps.options.webcam import make_parser

if __name__ == "__main__":
    args = make_parser().parse_args()
    from maskrcnn_benchmark.apps.webcam import main  # here: --help needs no torch
    from maskrcnn_benchmark.config import cfg

    main(args, cfg)
