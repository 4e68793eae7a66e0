"""Ends with one message when a config does not load or its data sets are not there; the other scripts call it.

python scripts/check_data.py CONFIG TRAIN TEST -- KEY VALUE ...
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from maskrcnn_benchmark.config import cfg  # noqa: E402
from maskrcnn_benchmark.config.catalog import resolve_dataset  # noqa: E402

WAYS = """Three ways to get a data set:
  1. COCO 2017, 19 GB:        bash {root}/download_dataset.sh /datasets/data
  2. a copy that you have:    DATA_DIR=/path/to/coco bash scripts/...   (the folder with annotations/ and train2017/)
  3. without a download:      bash scripts/train.sh configs/demo/mask_rcnn_R_18_FPN_shapes.yaml
                              your own pictures: docs/custom_data.md"""


def main(arguments: list[str]) -> int:
    """Check the splits named before ``--``; 0 when all their files are there, 1 otherwise."""
    cut = arguments.index("--")
    config_file, splits, opts = arguments[0], arguments[1:cut], arguments[cut + 1 :]
    config = cfg.clone()
    try:
        config.merge_from_file(config_file)
        config.merge_from_list(opts)
        for split in splits:
            for name in config.DATASETS[split]:
                resolve_dataset(config, name)
    except FileNotFoundError as error:
        print(f"{error}\n{WAYS.format(root=ROOT)}", file=sys.stderr)
        return 1
    except (OSError, KeyError, TypeError, ValueError) as error:
        # str() of a KeyError is the quoted repr of its message.
        print(error.args[0] if isinstance(error, KeyError) else error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
