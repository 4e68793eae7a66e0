"""Write the table of published configs. Example: python tools/model_zoo.py --only e2e_mask_rcnn_R_50_FPN_1x.yaml"""

from maskrcnn_benchmark.apps.model_zoo import main, make_parser
from maskrcnn_benchmark.config import cfg

if __name__ == "__main__":
    main(make_parser().parse_args(), cfg)
