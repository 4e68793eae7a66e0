"""Decode, scale, mirror and pad a batch in NVIDIA DALI, on a GPU or on the CPU."""

from __future__ import annotations

import functools
import gc
import os
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.data.loaders.device_images import DeviceImages, OwnStream
from maskrcnn_benchmark.data.loaders.encoded import EncodedBatch, UndecodableError
from maskrcnn_benchmark.structures.image_list import ImageList

_DECODER = "decoders.image"  # what DALI's errors call the operator


class DaliDecoder:
    """Turns encoded batches into pixels. It may be called from several threads; as many pipelines are made.

    On a GPU the files are decoded by its JPEG unit or its kernels, otherwise by libjpeg. Sizes are given to DALI, which
    would round them otherwise than `resized_size` does.

    Args:
        device: a CUDA device with its number, or the CPU; where the pixels are wanted.
        num_threads: DALI's own threads, for each pipeline.
    """

    def __init__(self, device: torch.device, *, num_threads: int) -> None:
        self.device = device
        self.num_threads = num_threads
        self.own_stream = OwnStream(device)
        self._idle: list[Any] = []  # pipelines that no thread is using

    def __call__(self, batch: EncodedBatch) -> ImageList:
        """Pixels uint8 [N, 3, H, W] in channels_last order, BGR, zeros beside and below each image.

        Raises:
            UndecodableError: when DALI cannot decode one of the files.
        """
        from nvidia.dali.plugin.pytorch import feed_ndarray

        pipeline = self._take(len(batch))
        try:
            (decoded,) = pipeline.run(**pipeline_inputs(batch))
        except RuntimeError as error:  # this pipeline is not used again: what state it is in is not documented
            if _DECODER in str(error):
                raise UndecodableError(_last_line(error)) from error
            raise
        pixels = decoded.as_tensor()
        with self.own_stream() as stream:
            out = torch.empty(pixels.shape(), dtype=torch.uint8, device=self.device)
            feed_ndarray(pixels, out, cuda_stream=stream)
            images = DeviceImages(out.permute(0, 3, 1, 2), batch.targets.image_sizes)
        self._idle.append(pipeline)
        return images

    def _take(self, batch_size: int) -> Any:
        """A pipeline for batches of this size, an idle one where there is one."""
        try:
            pipeline = self._idle.pop()
        except IndexError:
            pipeline = None
        if pipeline is None or pipeline.max_batch_size < batch_size:
            pipeline = _make_pipeline(self.device, batch_size=batch_size, num_threads=self.num_threads)
        return pipeline


def pipeline_inputs(batch: EncodedBatch) -> dict[str, list[np.ndarray]]:
    """What the pipeline is given for a batch: one array an image.

    A mirror image is the one of a region whose end lies before its start.
    """
    starts = np.array(
        [(float(upside_down), float(left_right)) for left_right, upside_down in batch.mirrored], np.float32
    )
    return {
        "files": [file.numpy() for file in batch.files()],
        "sizes": list(np.array(batch.targets.image_sizes, dtype=np.float32)),
        "starts": list(starts),
        "ends": list(1 - starts),
        "shape": [np.array(batch.shape, dtype=np.int32)] * len(batch),
    }


def _last_line(error: RuntimeError) -> str:
    """What went wrong, which DALI tells after where it went wrong; without its remark on the pipeline object."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(
        (line for line in reversed(lines) if line and not line.startswith("Current pipeline")), "no reason given"
    )


@functools.cache
def _spare_forked_processes() -> None:
    """Keep workers that are forked later from destroying pipelines that the garbage collector finds there.

    They do not have DALI's threads, for which it would wait for ever.
    """
    os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)


def _make_pipeline(device: torch.device, *, batch_size: int, num_threads: int) -> Any:
    from nvidia.dali import fn, pipeline_def, types

    _spare_forked_processes()
    on_gpu = device.type == "cuda"

    @pipeline_def
    def pipeline() -> Any:
        def given(name: str, dtype: Any) -> Any:
            return fn.external_source(name=name, dtype=dtype, ndim=1, batch=True)

        images = fn.decoders.image(
            given("files", types.UINT8),
            device="mixed" if on_gpu else "cpu",
            output_type=types.BGR,
            adjust_orientation=False,  # as OpenCV reads them: without EXIF's rotation
            use_fast_idct=False,
            jpeg_fancy_upsampling=True,  # as libjpeg does, on a GPU too
            hw_decoder_load=1.0,  # all on one unit: a share would make an image depend on its neighbours
        )
        images = fn.resize(
            images,
            size=given("sizes", types.FLOAT),
            roi_start=given("starts", types.FLOAT),
            roi_end=given("ends", types.FLOAT),
            roi_relative=True,
            interp_type=types.INTERP_LINEAR,
            antialias=False,  # OpenCV's INTER_LINEAR has none
        )
        return fn.pad(images, axes=(0, 1), shape=given("shape", types.INT32), fill_value=0)

    made = pipeline(
        batch_size=batch_size,
        num_threads=num_threads,
        device_id=device.index if on_gpu else None,
        prefetch_queue_depth=1,  # the loader keeps several batches going, and an error stays with its batch
    )
    made.build()
    return made
