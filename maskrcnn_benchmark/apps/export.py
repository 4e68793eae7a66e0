"""A trained network as files that run elsewhere: what tools/export.py does."""

from __future__ import annotations

import argparse
import importlib
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.categories import load_categories
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.export_images import CanvasPreparer, compare
from maskrcnn_benchmark.apps.options.export import make_parser as make_parser
from maskrcnn_benchmark.apps.predict import config_of, find_checkpoint
from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.config.classes import class_count
from maskrcnn_benchmark.data.transforms.normalize import DeviceNormalize, Normalize
from maskrcnn_benchmark.export.metadata import KEY, Metadata
from maskrcnn_benchmark.export.program import FixedShapeDetector, InputShape, export_program
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.utils.logger import setup_logger

logger = logging.getLogger("maskrcnn_benchmark.export")


@dataclass(frozen=True)
class Job:
    """One network for one size.

    Attributes:
        detector: the network.
        metadata: of the file in fp32.
        preparer: pictures to inputs.
        stem: of the files' names, with the folder.
    """

    detector: FixedShapeDetector
    metadata: Metadata
    preparer: CanvasPreparer
    stem: Path


@user_errors()
def main(args: argparse.Namespace) -> None:
    """Run the program with parsed options of ``make_parser``."""
    setup_logger("maskrcnn_benchmark", "", 0)
    check_options(args)
    weights = find_checkpoint(args.weights)
    cfg = make_config(weights, args.config_file, args.opts)
    shapes = make_shapes(cfg, args.size, batch=args.batch, takes_pixels=args.input == "uint8")
    detector = build_detector(cfg, weights)
    Path(args.output).mkdir(parents=True, exist_ok=True)
    for shape in shapes:
        metadata = make_metadata(cfg, shape, detector, weights)
        stem = Path(args.output, f"model_{shape.height}x{shape.width}")
        job = Job(detector, metadata, CanvasPreparer.from_config(cfg, shape), stem)
        for path in write_files(job, args.format, args.precision, calibrate=args.calibrate):
            logger.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
            if args.check:
                logger.info("%s", check_file(job, path, args.check))


def check_options(args: argparse.Namespace) -> None:
    """Check what belongs together before anything is loaded.

    Raises:
        ValueError: int8 without pictures, a batch below 1. ImportError: a package of the extra onnx is missing.
    """
    if args.batch < 1:
        raise ValueError(f"--batch must be at least 1, got {args.batch}")
    if "int8" in args.precision and not args.calibrate:
        raise ValueError("--precision int8 needs --calibrate with pictures like those that it will see, 50 or more")
    if "onnx" in args.format:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise ImportError(
                    f"--format onnx needs the package {name} ({error}): pip install 'maskrcnn_benchmark[onnx]'"
                ) from error


def make_config(weights: str, config_file: str | None, options: list[str]) -> CfgNode:
    """The config of a checkpoint with the options merged in, for the CPU, where files are made."""
    cfg = config_of(weights, config_file)
    cfg.merge_from_list(list(options))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def make_shapes(cfg: CfgNode, sizes: list[str] | None, *, batch: int, takes_pixels: bool) -> list[InputShape]:
    """The shapes to export.

    Args:
        cfg: reads INPUT's test sizes and DATALOADER.SIZE_DIVISIBILITY.
        sizes: "HxW" each; None: the canvases that hold every picture of the test settings.
        batch, takes_pixels: of `InputShape`.

    Raises:
        ValueError: a size is none, or no multiple of what the network needs.
    """
    step = max(cfg.DATALOADER.SIZE_DIVISIBILITY, 1)
    if sizes is None:
        shorter = -(-cfg.INPUT.MIN_SIZE_TEST // step) * step
        longer = max(-(-cfg.INPUT.MAX_SIZE_TEST // step) * step, shorter)
        pairs = list(dict.fromkeys([(shorter, longer), (longer, shorter)]))
    else:
        pairs = []
        for size in sizes:
            if not (match := re.fullmatch(r"(\d+)x(\d+)", size)) or "0" in match.groups():
                raise ValueError(f"--size must be HEIGHTxWIDTH in pixels, for instance 800x1344, got {size!r}")
            height, width = (int(number) for number in match.groups())
            if height % step or width % step:
                nearest = f"{-(-height // step) * step}x{-(-width // step) * step}"
                raise ValueError(
                    f"--size {size}: both must be multiples of DATALOADER.SIZE_DIVISIBILITY {step}; take {nearest}"
                )
            pairs.append((height, width))
    return [InputShape(batch, height, width, takes_pixels) for height, width in pairs]


def build_detector(cfg: CfgNode, weights: str) -> FixedShapeDetector:
    """Build the network that a config describes, with its weights.

    Raises:
        ValueError: the config asks for augmentation in testing, or the weights do not fit.
    """
    if cfg.TEST.BBOX_AUG.ENABLED:
        raise ValueError(
            "TEST.BBOX_AUG.ENABLED is True, but an exported network looks at a picture once; set it to False with "
            "--opts TEST.BBOX_AUG.ENABLED False"
        )
    model = build_detection_model(cfg)
    DetectronCheckpointer(cfg, model).load_weights(weights, strict=True)
    normalize = DeviceNormalize(
        Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD, to_bgr255=cfg.INPUT.TO_BGR255), "cpu"
    )
    return FixedShapeDetector(model, mean=normalize.mean, std=normalize.std, reverse=normalize.reverses)


def make_metadata(cfg: CfgNode, shape: InputShape, detector: FixedShapeDetector, weights: str) -> Metadata:
    """Describe the file of one shape; the network runs once, to name its outputs."""
    with torch.inference_mode():
        outputs = tuple(detector(*shape.example()))
    categories = load_categories(Path(weights).parent, class_count(cfg), cfg.DATASETS.CLASSES)
    unit = 1.0 if cfg.INPUT.TO_BGR255 else 255.0
    return Metadata(
        shape=shape,
        outputs=outputs,
        categories=[vars(category) for category in categories],
        min_size=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        pixel_mean=[value * unit for value in cfg.INPUT.PIXEL_MEAN],
        pixel_std=[value * unit for value in cfg.INPUT.PIXEL_STD],
        channel_order="BGR" if cfg.INPUT.TO_BGR255 else "RGB",
        mask_threshold=cfg.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD,
    )


def write_files(
    job: Job, formats: list[str], precisions: list[str], *, calibrate: list[str] | None = None
) -> list[Path]:
    """Write one network for one size in all forms; return the files.

    Args:
        job: the network and its size.
        formats: of `FORMATS`.
        precisions: of `PRECISIONS`, for ONNX.
        calibrate: files, folders, glob patterns of the pictures that int8 needs.
    """
    written = []
    for form in formats:
        program = export_program(job.detector, job.metadata.shape, portable=form == "portable")
        if form == "onnx":
            written += _write_onnx(job, program, precisions, calibrate)
            continue
        path = job.stem.with_name(job.stem.name + (".portable.pt2" if form == "portable" else ".pt2"))
        torch.export.save(program, path, extra_files={KEY: job.metadata.to_json()})
        _write_beside(path, job.metadata)
        written.append(path)
    return written


def _write_onnx(
    job: Job, program: torch.export.ExportedProgram, precisions: list[str], calibrate: list[str] | None
) -> list[Path]:
    from maskrcnn_benchmark.export import onnx_file, precision

    model = onnx_file.make_onnx(program, job.metadata.outputs)
    written = []
    for name in precisions:
        path = job.stem.with_name(job.stem.name + (".onnx" if name == "fp32" else f".{name}.onnx"))
        metadata = replace(job.metadata, precision=name)
        variant = model
        if name == "fp16":
            variant = precision.to_float16(model)
        elif name == "int8":
            inputs = ([t.numpy() for t in batch] for batch in job.preparer.batches(calibrate))
            variant = precision.to_int8(model, inputs)
        onnx_file.save_onnx(variant, path, {KEY: metadata.to_json()})
        _write_beside(path, metadata)
        written.append(path)
    return written


def _write_beside(path: Path, metadata: Metadata) -> None:
    path.with_name(path.name + ".json").write_text(metadata.to_json() + "\n")


def check_file(job: Job, path: Path, images: list[str]) -> str:
    """Compare what a file finds in pictures with what PyTorch finds; return a line that says how near they are."""
    if path.suffix == ".pt2":
        run = torch.export.load(path).module()
    else:
        from maskrcnn_benchmark.export.onnx_run import OnnxRunner

        run = OnnxRunner(path)
    with torch.inference_mode():
        pairs = (
            tuple({name: t.numpy() for name, t in outputs.items()} for outputs in (job.detector(*inputs), run(*inputs)))
            for inputs in job.preparer.batches(images)
        )
        return f"{path} beside PyTorch: {compare(pairs)}"
