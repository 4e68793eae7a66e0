"""Convert a budget of time between GPUs: tools/time_budget.py --reference-epoch-seconds 65 --local-epoch-seconds 28."""

from maskrcnn_benchmark.apps.options.time_budget import make_parser

if __name__ == "__main__":
    args = make_parser().parse_args()
    from maskrcnn_benchmark.apps.competition.conversion import main  # here: --help needs no torch

    main(args)
