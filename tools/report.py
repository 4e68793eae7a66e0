"""Write the report of a run. Example: python tools/report.py /results"""

from maskrcnn_benchmark.apps.options.report import make_parser

if __name__ == "__main__":
    args = make_parser().parse_args()
    from maskrcnn_benchmark.apps.report.report import main  # here: --help needs no torch

    main(args)
