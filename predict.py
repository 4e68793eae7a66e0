"""Write the submission: python predict.py, after train.py. DATA_ROOT: the data (default /DATA)."""

from pathlib import Path

from maskrcnn_benchmark.apps.options.competition import make_predict_parser
from maskrcnn_benchmark.utils.openmp import share_cores

ROOT = Path(__file__).resolve().parent

if __name__ == "__main__":
    args = make_predict_parser(ROOT).parse_args()
    share_cores()
    from maskrcnn_benchmark.apps.competition.kernels import build_kernels  # before anything looks for them

    build_kernels(ROOT)
    from maskrcnn_benchmark.apps.competition.predict import main
    from maskrcnn_benchmark.config import cfg

    main(args, cfg)
