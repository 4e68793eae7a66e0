"""An ONNX file in onnxruntime, with the tensors of PyTorch."""

from __future__ import annotations

import os

import onnxruntime
import torch
from torch import Tensor


class OnnxRunner:
    """A file of `save_onnx` on the CPU, called like `FixedShapeDetector`.

    Args:
        path: of the file.
        num_threads: of onnxruntime; 0 takes as many as PyTorch.
    """

    def __init__(self, path: str | os.PathLike[str], *, num_threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            os.fspath(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.output_names = [output.name for output in self.session.get_outputs()]

    def __call__(self, images: Tensor, image_sizes: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name for inputs on the CPU, see `FixedShapeDetector.forward`."""
        values = self.session.run(None, {"images": images.numpy(), "image_sizes": image_sizes.numpy()})
        return dict(zip(self.output_names, map(torch.from_numpy, values), strict=True))
