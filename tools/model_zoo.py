"""Write the table of published configs. Example: python tools/model_zoo.py --only e2e_mask_rcnn_R_50_FPN_1x.yaml"""

from maskrcnn_benchmark.apps.options.model_zoo import make_parser

if __name__ == "__main__":
    args = make_parser().parse_args()
    from maskrcnn_benchmark.apps.model_zoo import main  # here: --help needs no torch
    from maskrcnn_benchmark.config import cfg

    main(args, cfg)
