"""What the test of the deterministic mode starts: some steps; prints a digest of the losses and weights.

python -m tests.gpu.deterministic_run DTYPE CAPTURE
"""

from __future__ import annotations

import hashlib
import sys

import torch

from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.seeding import use_deterministic_kernels
from tests.gpu.network import DEVICE, FIXED, Trainer


def main(dtype, capture, device=DEVICE):
    use_deterministic_kernels()
    precision = Precision(device.type, getattr(torch, dtype), channels_last=True)
    losses, weights = Trainer(precision, capture=capture, device=device, **FIXED).run()
    digest = hashlib.sha256(repr(losses).encode())
    for tensor in weights.values():
        digest.update(tensor.numpy().tobytes())
    print(digest.hexdigest(), losses[-1])


if __name__ == "__main__":
    main(*sys.argv[1:])
