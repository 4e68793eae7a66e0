"""Set runs side by side. Example: python tools/compare.py results/first results/second --out comparison.html"""

from maskrcnn_benchmark.apps.report.compare import main, make_parser

if __name__ == "__main__":
    main(make_parser().parse_args())
