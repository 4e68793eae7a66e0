"""Loaders that decode whole batches where the network runs, beside the worker processes that decode image by image.

They yield what the plain loader yields: the same samples in the same order, the same targets to the last bit, and
images that differ by the rounding of another decoder and resampler.
"""

from __future__ import annotations

from maskrcnn_benchmark.data.loaders.backends import choose_backend
from maskrcnn_benchmark.data.loaders.build import make_decoding_loader
from maskrcnn_benchmark.data.loaders.decoding_loader import DecodingLoader
from maskrcnn_benchmark.data.loaders.watched import LoaderError, WatchedLoader

__all__ = ["DecodingLoader", "LoaderError", "WatchedLoader", "choose_backend", "make_decoding_loader"]
