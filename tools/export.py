"""Write a network for other runtimes. Example: python tools/export.py --weights results --check photos/"""

from maskrcnn_benchmark.apps.export import main, make_parser

if __name__ == "__main__":
    main(make_parser().parse_args())
