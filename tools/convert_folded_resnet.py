"""Turn an ImageNet ResNet with folded batch norm (a folder of .npy files) into a file for MODEL.WEIGHT.

Example: python tools/convert_folded_resnet.py resnet18_folded/ weights/resnet18.pth
"""

import argparse
import os


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder with conv1.weight.npy, conv1.bias.npy, layer1.0.conv1.weight.npy, ...")
    parser.add_argument("output", help="state dict to write (.pth)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Read the folder, write the file, say what was left out."""
    from maskrcnn_benchmark.checkpoint.files import save_atomically  # here: --help needs no torch
    from maskrcnn_benchmark.checkpoint.folded_resnet import pixel_mean, read_folded_resnet

    state, incomplete = read_folded_resnet(args.folder)
    os.makedirs(os.path.dirname(args.output) or ".", exist_ok=True)
    save_atomically({"model": state}, args.output)
    print(f"wrote {len(state)} tensors to {args.output}; use them with INPUT.PIXEL_MEAN {pixel_mean()}")
    if incomplete:
        print(f"left out, weight or bias is missing: {', '.join(incomplete)}")


if __name__ == "__main__":
    arguments = make_parser().parse_args()
    from maskrcnn_benchmark.apps.errors import user_errors

    with user_errors():
        main(arguments)
