"""Run a model over a data set, gather what all processes found, evaluate it."""

from __future__ import annotations

import datetime
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from maskrcnn_benchmark.data.broken_images import report_broken_images
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Preparation
from maskrcnn_benchmark.evaluation import evaluate, save_predictions, write_results
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.tracking import MetricSink
from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark.inference")

METADATA = {
    "e2e_infer_time": "s",
    "inference_perf_fps": "images/s",
    "latency_avg": "s",
    "latency_90": "s",
    "latency_95": "s",
    "latency_99": "s",
}


@dataclass
class InferenceTimes:
    """How long each batch took on this process, from the batch in host memory to the detections there.

    Args:
        seconds: one entry a batch.
        images: number of images of each batch.
    """

    seconds: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Mean and percentiles of the time of a batch in seconds, as latency_avg, latency_90, _95, _99."""
        if not self.seconds:
            return {}
        percentiles = np.percentile(self.seconds, (90, 95, 99))
        names = ("latency_90", "latency_95", "latency_99")
        return {"latency_avg": float(np.mean(self.seconds)), **dict(zip(names, percentiles.tolist(), strict=True))}


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
            for index, output in zip(indices, outputs, strict=True):
                # what is seen in the place of an image that cannot be read is not a detection
                results[index] = output[:0] if broken is not None and broken.is_broken(index) else output
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
) -> tuple[Any, dict[str, list[dict]]] | None:
    """Detect on a whole data set, write the result files, evaluate.

    Args:
        model: see compute_on_dataset.
        data_loader: has ``dataset`` as ``evaluation.evaluate`` takes it.
        dataset_name: for the log.
        iou_types: "bbox", "segm", "keypoints".
        box_only: the model gives proposals (RPN_ONLY).
        device: where the model is.
        expected_results, expected_results_sigma_tol: see ``evaluation.check_expected_results``.
        output_folder: receives predictions.pth, bbox.json, segm.json, keypoints.json, and coco_results.pth or
            box_proposals.pth.
        skip_eval: write the files, but do not evaluate.
        steps: batches to run on each process; -1 for all.
        precision: number format; default float32.
        normalize: see compute_on_dataset.
        sink: receives throughput and latency.
        detect: see compute_on_dataset.
        oks_sigmas: see ``evaluation.evaluate_detections``.

    Returns:
        On rank 0 (CocoResults, COCO result lists by IoU type); None elsewhere and with ``skip_eval``.
    """
    dataset = data_loader.dataset
    logger.info("Start evaluation on %s dataset (%d images)", dataset_name, len(dataset))
    times = InferenceTimes()
    begin = time.perf_counter()
    predictions = compute_on_dataset(
        model, data_loader, device, steps, precision=precision, normalize=normalize, times=times, detect=detect
    )
    comm.synchronize()
    seconds = time.perf_counter() - begin
    report_broken_images(dataset)
    predictions = gather_predictions(predictions)
    if not comm.is_main_process():
        return None
    _report_times(times, seconds, num_images=len(predictions), sink=sink)
    if output_folder:
        save_predictions(os.path.join(output_folder, "predictions.pth"), predictions)
    if skip_eval:
        if output_folder and not box_only:
            write_results(dataset, predictions, output_folder, iou_types=iou_types)
        logger.info("Evaluation is skipped; results are in %s", output_folder or "no file")
        return None
    return evaluate(
        dataset,
        predictions,
        output_folder,
        box_only=box_only,
        iou_types=iou_types,
        expected_results=expected_results,
        expected_results_sigma_tol=expected_results_sigma_tol,
        oks_sigmas=oks_sigmas,
    )


def _report_times(times: InferenceTimes, seconds: float, *, num_images: int, sink: MetricSink | None) -> None:
    devices = comm.get_world_size()
    per_image = seconds * devices / max(num_images, 1)
    duration = datetime.timedelta(seconds=seconds)
    logger.info("Total inference time: %s (%.5f s / img per device, on %d devices)", duration, per_image, devices)
    latency = times.figures()
    if latency:
        text = ", ".join(f"{name.removeprefix('latency_')}: {value:.4f}" for name, value in latency.items())
        logger.info("Latency of a batch in seconds (mean and percentiles): %s", text)
    if sink is not None:
        for metric, unit in METADATA.items():
            sink.metadata(metric, {"unit": unit})
        sink.log((), {"e2e_infer_time": seconds, "inference_perf_fps": num_images / seconds, **latency})
