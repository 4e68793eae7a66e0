"""Run a model over a data set, gather what all processes found, evaluate it."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from maskrcnn_benchmark.data.broken_images import report_broken_images
from maskrcnn_benchmark.engine.background import BackgroundConsumer
from maskrcnn_benchmark.engine.latency import METADATA, Clock, InferenceTimes
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Preparation
from maskrcnn_benchmark.evaluation import EvaluationSettings, ResultSpool, evaluate, result_kinds
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.tracking import MetricSink
from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark.inference")

__all__ = ["METADATA", "InferenceTimes", "compute_on_dataset", "gather_predictions", "gather_spool", "inference"]


@torch.no_grad()
def compute_on_dataset(
    model: nn.Module,
    data_loader: Iterable,
    device: torch.device | str,
    steps: int = -1,
    *,
    precision: Precision | None = None,
    normalize: Callable[[ImageList], ImageList] | None = None,
    times: InferenceTimes | None = None,
    detect: Callable[[Any], list[BoxList]] | None = None,
    receive: Callable[[tuple[Sequence[int], list[BoxList]]], None] | None = None,
) -> dict[int, BoxList]:
    """Detections of this process's part of the data set, on the CPU, by data set index.

    Args:
        model: gives a list of BoxList for an ImageList; left in evaluation mode.
        data_loader: yields (ImageList, targets, data set indices).
        device: where the model is.
        steps: batches to run; -1 for all.
        precision: number format; default float32.
        normalize: pixels to the network's input, where the loader gives pixels; see Preparation.
        times: receives the time of each batch.
        detect: from the loader's images to detections; None: the model itself, on prepared images.
        receive: takes the indices and the detections of each batch; the result is then empty.
    """
    device = torch.device(device)
    precision = precision or Precision(device.type)
    preparation = Preparation(precision, device, normalize)
    times = times if times is not None else InferenceTimes()
    detect = detect or (lambda images: model(preparation.images(images)))
    model.eval()
    results: dict[int, BoxList] = {}
    broken = getattr(getattr(data_loader, "dataset", None), "broken_images", None)
    shown = comm.is_main_process() and sys.stderr.isatty()
    with tqdm(data_loader, disable=not shown, dynamic_ncols=True) as batches:
        for step, (images, _, indices) in enumerate(batches):
            if step == steps:
                break
            begin = time.perf_counter()
            with precision.autocast():
                outputs = detect(images)
            outputs = [output.to("cpu") for output in outputs]  # waits for the device
            times.seconds.append(time.perf_counter() - begin)
            times.images.append(len(indices))
            if broken is not None:  # what is seen in the place of an image that cannot be read is not a detection
                outputs = [o[:0] if broken.is_broken(i) else o for i, o in zip(indices, outputs, strict=True)]
            if receive is not None:
                receive((indices, outputs))
            else:
                results.update(zip(indices, outputs, strict=True))
    return results


def gather_predictions(predictions: Mapping[int, BoxList]) -> dict[int, BoxList]:
    """Predictions of all processes by ascending data set index, on rank 0; elsewhere empty.

    An image that several processes saw (samplers pad to equal parts) counts once.
    """
    gathered = comm.all_gather(dict(predictions))
    if not comm.is_main_process():
        return {}
    merged = {index: found for part in reversed(gathered) for index, found in part.items()}
    return dict(sorted(merged.items()))


def gather_spool(spool: ResultSpool) -> None:
    """Bring the records of all processes to rank 0, in parts that fit into memory.

    An image that several processes saw counts once.
    """
    if comm.get_world_size() == 1:
        return
    parts = spool.chunks() if not comm.is_main_process() else iter(())
    part = next(parts, [])
    while any(comm.all_gather(bool(part))):
        gathered: list[Any] | None = [None] * comm.get_world_size() if comm.is_main_process() else None
        dist.gather_object(part, gathered, dst=0)
        for records in gathered or ():
            spool.absorb(records)
        part = next(parts, [])


def inference(
    model: nn.Module,
    data_loader: Any,
    dataset_name: str,
    iou_types: Sequence[str] = ("bbox",),
    box_only: bool = False,
    device: torch.device | str = "cuda",
    expected_results: Iterable[Sequence] = (),
    expected_results_sigma_tol: float = 4,
    output_folder: str | None = None,
    skip_eval: bool = False,
    *,
    steps: int = -1,
    precision: Precision | None = None,
    normalize: Callable[[ImageList], ImageList] | None = None,
    sink: MetricSink | None = None,
    detect: Callable[[Any], list[BoxList]] | None = None,
    oks_sigmas: Sequence[float] = (),
    coco_engine: str = "fast",
    num_resamples: int = 200,
    warm_up: int = 0,
    defer: bool = False,
) -> Any:
    """Detect on a whole data set, write the result files, evaluate.

    While a batch is computed, the detections of the one before become COCO results in a thread and go to disk, so that
    neither masks nor result lists of the whole data set are ever in memory.

    Args:
        model: see compute_on_dataset.
        data_loader: has ``dataset`` as ``evaluation.evaluate`` takes it.
        dataset_name: for the log and evaluation.json.
        iou_types: "bbox", "segm", "keypoints".
        box_only: the model gives proposals (RPN_ONLY).
        device: where the model is.
        expected_results, expected_results_sigma_tol: see ``evaluation.check_expected_results``.
        output_folder: receives predictions.pth, bbox.json, segm.json, keypoints.json, and coco_results.pth or
            box_proposals.pth, and evaluation.json.
        skip_eval: write the result files, but do not evaluate.
        steps: batches to run on each process; -1 for all.
        precision: number format; default float32.
        normalize: see compute_on_dataset.
        sink: receives throughput and latency.
        detect: see compute_on_dataset.
        oks_sigmas, coco_engine, num_resamples: see ``evaluation.EvaluationSettings``.
        warm_up: batches at the beginning that count neither for latency nor for throughput.
        defer: leave the evaluation to the caller where it can run in a thread; pycocotools, which writes to stdout,
            cannot.

    Returns:
        On rank 0 (CocoResults, COCO result lists by IoU type), or with ``defer`` a function without arguments that
        evaluates and returns these; None elsewhere and with ``skip_eval``.
    """
    dataset = data_loader.dataset
    settings = EvaluationSettings(
        box_only=box_only,
        iou_types=tuple(iou_types),
        expected_results=tuple(expected_results),
        expected_results_sigma_tol=expected_results_sigma_tol,
        oks_sigmas=oks_sigmas,
        coco_engine=coco_engine,
        num_resamples=num_resamples,
        dataset_name=dataset_name,
    )
    logger.info("Start evaluation on %s dataset (%d images)", dataset_name, len(dataset))
    clock = Clock(InferenceTimes(warm_up=warm_up))
    kinds = result_kinds(dataset, settings) if not skip_eval or box_only else settings.iou_types
    with contextlib.closing(ResultSpool(dataset, kinds, output_folder)) as spool:
        with BackgroundConsumer(lambda batch: [spool.add(*pair) for pair in zip(*batch, strict=True)]) as results:
            options = {"precision": precision, "normalize": normalize, "detect": detect, "times": clock.times}
            compute_on_dataset(model, data_loader, device, steps, **options, receive=clock.passing(results.put))
            comm.synchronize()
            clock.stop()
        report_broken_images(dataset)
        gather_spool(spool)
        num_counted = sum(comm.all_gather(sum(clock.times.images[clock.times.first :])))
        if not comm.is_main_process():
            return None
        clock.report(num_images=len(spool), num_counted=num_counted, sink=sink)
        predictions, lists = spool.finish()
    if skip_eval:
        logger.info("Evaluation is skipped; results are in %s", output_folder or "no file")
        return None

    def run() -> tuple[Any, Mapping[str, list[dict]]]:
        return evaluate(dataset, predictions, output_folder, settings=settings, results=lists)

    if not defer or coco_engine != "fast" or "keypoints" in iou_types:
        return _deferred(run()) if defer else run()
    with contextlib.redirect_stdout(io.StringIO()):  # which is of the whole process, so it must not wait for the thread
        getattr(dataset, "coco", None)
    return run


def _deferred(outcome: Any) -> Callable[[], Any]:
    return lambda: outcome
