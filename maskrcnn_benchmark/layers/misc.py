"""Published names of layers whose special treatment of empty batches PyTorch has long made unnecessary."""

from __future__ import annotations

from torch import nn
from torch.nn.functional import interpolate

from maskrcnn_benchmark.layers.conv import Conv2d

ConvTranspose2d = nn.ConvTranspose2d
BatchNorm2d = nn.BatchNorm2d

__all__ = ["BatchNorm2d", "Conv2d", "ConvTranspose2d", "interpolate"]
