"""What a training run says of a failure, and what it keeps of it."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.data.loaders import LoaderError
from maskrcnn_benchmark.data.loaders.watched import explain_worker_failure
from maskrcnn_benchmark.engine.debug_bundle import Faulty, save_bundle
from maskrcnn_benchmark.engine.nonfinite import Failure, Response, make_response
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.memory import describe_memory, ran_out_of_memory

_MOST_BUNDLES = 3  # of a run: the first ones tell the most
_GPU_REMEDY = (
    "lower SOLVER.IMS_PER_BATCH (SOLVER.ACCUMULATE_GRAD True with ACCUMULATE_STEPS keeps the size of an update), lower "
    "INPUT.MIN_SIZE_TRAIN or INPUT.MAX_SIZE_TRAIN, name shapes in INPUT.SHAPE_BUCKETS, so that memory is not cut into "
    "odd pieces, or set DTYPE float16 or bfloat16"
)
_HOST_REMEDY = (
    "lower SOLVER.IMS_PER_BATCH (SOLVER.ACCUMULATE_GRAD True with ACCUMULATE_STEPS keeps the size of an update), lower "
    "INPUT.MIN_SIZE_TRAIN or INPUT.MAX_SIZE_TRAIN, or lower DATALOADER.NUM_WORKERS, each of which holds batches too"
)


@dataclass(frozen=True)
class FailureOptions:
    """What a run does about failures.

    Args:
        nonfinite: see make_response.
        nonfinite_limit: likewise.
        debug_dir: folder for debug bundles; "" keeps none.
        config_text: the run's config as YAML, for them.
        most_positives: regions an image that the box and mask heads train on at most, for messages.
    """

    nonfinite: str = "stop"
    nonfinite_limit: int = 10
    debug_dir: str = ""
    config_text: str = ""
    most_positives: int = 0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> FailureOptions:
        """Read SOLVER.NONFINITE and NONFINITE_LIMIT, OUTPUT_DIR and MODEL.ROI_HEADS."""
        heads = cfg.MODEL.ROI_HEADS
        has_heads = not (cfg.MODEL.RPN_ONLY or cfg.MODEL.RETINANET_ON)
        return cls(
            nonfinite=cfg.SOLVER.NONFINITE,
            nonfinite_limit=cfg.SOLVER.NONFINITE_LIMIT,
            debug_dir=os.path.join(cfg.OUTPUT_DIR, "debug") if cfg.OUTPUT_DIR else "",
            config_text=cfg.dump(),
            most_positives=int(heads.BATCH_SIZE_PER_IMAGE * heads.POSITIVE_FRACTION) if has_heads else 0,
        )


class FailureWatch:
    """Knows what the training loop has in work, for messages and debug bundles.

    Args:
        options: what is done.
        model: the network, wrapped or not.
        loader: of the batches.
        precision: whose loss scale is told.
        device: where the network is.
        seed: of the run.
        last_checkpoint: gives the path of the one to go on from, "" for none.

    Attributes:
        response: for the losses that are not finite.
        history: losses of the last iterations, see LossBuffer.
    """

    def __init__(
        self,
        options: FailureOptions,
        model: nn.Module,
        loader: Any,
        precision: Precision,
        device: torch.device,
        *,
        seed: int,
        last_checkpoint: Callable[[], str] | None = None,
    ) -> None:
        self.options = options
        self.model = model
        self.loader = loader
        self.precision = precision
        self.last_checkpoint = last_checkpoint or (lambda: "")
        self.device = device
        self.seed = seed
        # Without a cycle the loader, and with it its workers, end with the loop and not with the next collection.
        keeper = weakref.WeakMethod(self._keep)
        keep = (lambda failure: keeper()(failure)) if options.debug_dir else None
        self.response: Response = make_response(options.nonfinite, options.nonfinite_limit, keep)
        self.history: Any = ()
        self.iteration, self.lr, self.batch = 0, 0.0, None
        self._num_bundles = 0

    def begin(self, iteration: int, lr: float, batch: Any) -> None:
        """An iteration begins over a prepared batch (ImageList, targets, indices)."""
        self.iteration, self.lr, self.batch = iteration, lr, batch

    def batches(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same batches; what fails in the making of one is named."""
        iterator = iter(batches)
        while True:
            with self.naming():
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Raise what fails inside with the batch, the checkpoint to go on from and the remedy, where these are known.

        Raises:
            MemoryError: memory ran out.
        """
        try:
            yield
        except (RuntimeError, MemoryError, OSError) as error:
            if isinstance(error, LoaderError) or not ran_out_of_memory(error):
                raise
            raise MemoryError(self._describe_shortage(error)) from error

    def _describe_shortage(self, error: BaseException) -> str:
        if "DataLoader worker" in str(error):
            what, remedy = f"out of memory in a loader worker near iteration {self.iteration + 1}", _HOST_REMEDY
        else:
            remedy = _GPU_REMEDY if self.device.type == "cuda" else _HOST_REMEDY
            what = f"out of memory on {self.device} at iteration {self.iteration} (process {comm.get_rank()})"
            what += f" with {self._describe_batch()}"
        memory = describe_memory(self.device)
        checkpoint = self.last_checkpoint()
        kept = f"; the last checkpoint is {checkpoint}" if checkpoint else ""
        return f"{what}{', ' if memory else ''}{memory}; {remedy}{kept}"

    def _describe_batch(self) -> str:
        """Shape and content of the batch in work; reads nothing from a device that may have failed."""
        if self.batch is None:
            return "no batch yet"
        images, targets, indices = self.batch
        slots = getattr(targets, "boxes", None)
        objects = f", up to {slots.shape[1]} ground truths" if slots is not None else ""
        regions = f" and up to {self.options.most_positives} positive regions" if self.options.most_positives else ""
        ids = ", ".join(map(str, self._image_ids(indices)))
        return f"a batch of {' x '.join(map(str, images.tensors.shape))}{objects}{regions} an image (image ids {ids})"

    def _image_ids(self, indices: Any) -> list[Any]:
        ids = getattr(getattr(self.loader, "dataset", None), "id_to_img_map", None)
        return [ids[index] if ids is not None else index for index in indices]

    def _keep(self, failure: Failure) -> str:
        """Write a debug bundle on the process that failed; every process calls it, and says where it is."""
        if self._num_bundles >= _MOST_BUNDLES:
            return ""
        self._num_bundles += 1
        path = ""
        if comm.get_rank() == failure.rank:
            path = save_bundle(self.options.debug_dir, self._describe(failure), self.model, self.loader)
        path = comm.broadcast(path, src=failure.rank)
        return f"python tools/replay_debug.py {path} shows where" if path else ""

    def _describe(self, failure: Failure) -> Faulty:
        return Faulty(
            failure=failure,
            noticed_at=self.iteration,
            weights_are_exact=not self.response.keeps_on or failure.iteration == self.iteration,
            seed=self.seed,
            lr=self.lr,
            scaler=self.precision.scaler.state_dict(),
            history=list(self.history),
            config_text=self.options.config_text,
            batch=self.batch if failure.iteration == self.iteration else None,
        )


def explain(error: BaseException) -> str | None:
    """One sentence on a failure that the user can mend and that nobody has explained before; None for any other."""
    reason = explain_worker_failure(error) if isinstance(error, RuntimeError) else None
    if reason is not None:
        return reason
    if not ran_out_of_memory(error) or (isinstance(error, MemoryError) and str(error)):
        return None
    on_gpu = torch.cuda.is_available() and (isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error))
    device = torch.device("cuda" if on_gpu else "cpu")
    lower = "TEST.IMS_PER_BATCH or SOLVER.IMS_PER_BATCH" + ("" if on_gpu else ", or DATALOADER.NUM_WORKERS")
    return f"out of memory ({describe_memory(device) or str(error).splitlines()[0]}); lower {lower}"
