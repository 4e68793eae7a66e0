"""Write the report of a run. Example: python tools/report.py /results"""

from maskrcnn_benchmark.apps.report.report import main, make_parser

if __name__ == "__main__":
    main(make_parser().parse_args())
