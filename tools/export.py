"""Write a network for other runtimes. Example: python tools/export.py --weights results --check photos/"""

from maskrcnn_benchmark.apps.options.export import make_parser

if __name__ == "__main__":
    args = make_parser().parse_args()
    from maskrcnn_benchmark.apps.export import main  # here: --help needs no torch

    main(args)
