"""Set runs side by side. Example: python tools/compare.py results/first results/second --out comparison.html"""

from maskrcnn_benchmark.apps.options.compare import make_parser

if __name__ == "__main__":
    args = make_parser().parse_args()
    from maskrcnn_benchmark.apps.report.compare import main  # here: --help needs no torch

    main(args)
