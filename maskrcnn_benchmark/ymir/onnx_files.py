"""A stage's network as an ONNX file beside its weights."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from maskrcnn_benchmark.apps.export import Job as ExportJob
from maskrcnn_benchmark.apps.export import (
    build_detector,
    check_options,
    make_config,
    make_metadata,
    make_shapes,
    write_files,
)
from maskrcnn_benchmark.apps.export_images import CanvasPreparer
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode

logger = logging.getLogger("maskrcnn_benchmark.ymir")


def check_packages() -> None:
    """Find out before a training whether its network can be written afterwards.

    Raises:
        JobError: a package is missing.
    """
    try:
        check_options(argparse.Namespace(batch=1, precision=(), calibrate=None, format=("onnx",)))
    except ImportError as error:
        raise JobError(ReturnCode.CONFIG, f"export_onnx is true, but {error}") from error


def write_onnx(weights: Path, opset: int) -> list[str]:
    """Write the network for pictures in landscape format, in which those in portrait format find room too.

    Args:
        weights: a stage's, with its config in it.
        opset: that the file should have; it stays what it is where the network cannot be told in another.

    Returns:
        The names of the files, beside the weights.

    Raises:
        ValueError: the network has a part that ONNX cannot express.
    """
    cfg = make_config(str(weights), None, [])
    shape = make_shapes(cfg, None, batch=1, takes_pixels=True)[0]
    detector = build_detector(cfg, str(weights))
    metadata = make_metadata(cfg, shape, detector, str(weights))
    job = ExportJob(detector, metadata, CanvasPreparer.from_config(cfg, shape), weights.with_suffix(""))
    paths = write_files(job, ["onnx"], ["fp32"])
    for path in paths:
        set_opset(path, opset)
        logger.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
    return [name for path in paths for name in (path.name, f"{path.name}.json")]


def set_opset(path: Path, opset: int) -> None:
    """Bring an ONNX file to another version of the operators, where that can be done."""
    import onnx
    from onnx import version_converter

    model = onnx.load(path)
    written = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if written == opset:
        return
    try:
        converted = version_converter.convert_version(model, opset)
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # its converters fail in every way
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        logger.warning("%s stays at opset %d: it cannot be told in opset %d (%s)", path, written, opset, reason)
        return
    onnx.save(converted, path)
