"""Pack a model for YMIR's page "import model". Example: python tools/ymir_pack_model.py results -o model.tar.gz"""

from maskrcnn_benchmark.ymir.package_options import make_parser

if __name__ == "__main__":
    args = make_parser().parse_args()
    from maskrcnn_benchmark.ymir.package import main  # here: --help needs no torch

    print(f"{args.output}: model {main(args)}")
