"""Detect on pictures: draws boxes, masks, labels and scores, and writes COCO json.

    python tools/predict.py photo.jpg folder/ "more/*.png" --weights results

Writes `<name>.jpg` a picture and predictions.json into --output. Ends with status 1 when a picture is broken (the
others are done) or nothing can be done.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.apps.predict_files import predict_files


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line of this tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders or glob patterns")
    parser.add_argument("--weights", required=True, help="a .pth file, or the output folder of a training run")
    parser.add_argument("--config-file", help="in place of the config that was saved with the weights")
    parser.add_argument("--output", default="predictions", help="folder of the results (default: %(default)s)")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="least score (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda when available")
    parser.add_argument("--no-pictures", action="store_true", help="write predictions.json only")
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help="further settings of the config")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the tool; the exit status."""
    args = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        predictor = Predictor.from_checkpoint(
            args.weights,
            config_file=args.config_file,
            options=args.opts,
            device=args.device,
            confidence_threshold=args.confidence_threshold,
        )
        errors = predict_files(predictor, args.images, args.output, draw=not args.no_pictures)
    except (OSError, KeyError, TypeError, ValueError) as error:
        # str() of a KeyError is the quoted repr of its message.
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    print(f"results are in {args.output}")
    if errors:
        print(f"{len(errors)} pictures could not be read, see above", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
