"""Run a failed iteration again: python tools/replay_debug.py OUTPUT_DIR/debug/iteration_0000123"""

from maskrcnn_benchmark.apps.options.replay_debug import make_parser

if __name__ == "__main__":
    args = make_parser().parse_args()
    from maskrcnn_benchmark.apps.replay_debug import main  # here: --help needs no torch
    from maskrcnn_benchmark.config import cfg

    main(args, cfg)
