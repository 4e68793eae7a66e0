"""Run a failed iteration again: python tools/replay_debug.py OUTPUT_DIR/debug/iteration_0000123"""

from maskrcnn_benchmark.apps.replay_debug import main, make_parser
from maskrcnn_benchmark.config import cfg

if __name__ == "__main__":
    main(make_parser().parse_args(), cfg)
