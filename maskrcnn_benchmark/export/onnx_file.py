"""A program of torch.export as an ONNX file of standard operators."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch.export import ExportedProgram

from maskrcnn_benchmark.export.onnx_ops import TRANSLATIONS
from maskrcnn_benchmark.export.program import INPUT_NAMES

OPSET = 18
_OPSET_OF_DEFORM_CONV = 19
_NO_LIMIT = 1 << 40


def make_onnx(program: ExportedProgram, output_names: Sequence[str]) -> onnx.ModelProto:
    """Translate a program; every weight is folded into the convolution that uses it, every anchor into a constant.

    Args:
        program: of `export_program`, not portable.
        output_names: of its outputs, in order.

    Raises:
        ValueError: an operator of the program has no counterpart in ONNX.
    """
    deforms = any(str(node.target).startswith("mrcnn.deform_conv") for node in program.graph.nodes)
    with _quiet():
        try:
            result = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=_OPSET_OF_DEFORM_CONV if deforms else OPSET,
                input_names=list(INPUT_NAMES),
                output_names=list(output_names),
                custom_translation_table=TRANSLATIONS,
                optimize=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(_first_cause(error)).splitlines()[0]
            raise ValueError(f"the network has a part that ONNX cannot express: {reason}") from error
        model = result.model
        onnxscript.optimizer.optimize(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
        shorten_sorts(model.graph)
        ir.passes.common.RemoveUnusedNodesPass()(model)
    return ir.to_proto(model)


def shorten_sorts(graph: ir.Graph) -> None:
    """Let a sort find the first n values only, where nothing else is taken from its results.

    TensorRT's TopK gives 3840 values at most, and the box head sorts 80 x 1000.
    """
    for node in graph:
        if node.op_type != "TopK":
            continue
        users = [use.node for output in node.outputs for use in output.uses()]
        ends = {_end_of_head(user, node) for user in users}
        if len(ends) == 1 and (end := ends.pop()) is not None:
            count = ir.val(f"{node.name}_count", const_value=ir.tensor([end], dtype=ir.DataType.INT64))
            graph.register_initializer(count)
            node.replace_input_with(1, count)
            for output in node.outputs:
                output.shape = None
                for use in list(output.uses()):
                    use.node.outputs[0].replace_all_uses_with(output)
            graph.remove(users, safe=True)


def _end_of_head(node: ir.Node, sort: ir.Node) -> int | None:
    """N where the node takes the first n values along the axis of the sort; None for any other node."""
    if node.op_type != "Slice" or node.outputs[0].is_graph_output():
        return None
    numbers = [ir.convenience.get_const_tensor(value) for value in node.inputs[1:]]
    if len(numbers) < 3 or any(number is None or number.size != 1 for number in numbers):
        return None
    start, end, axis, *step = (int(number.numpy().reshape(())) for number in numbers)
    rank = len(sort.inputs[0].shape)
    same_axis = axis % rank == sort.attributes["axis"].as_int() % rank
    return end if start == 0 and same_axis and step in ([], [1]) else None


def save_onnx(model: onnx.ModelProto, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Check a model and write it with its metadata as one file.

    Raises:
        ValueError: it is larger than the 2 GB that such a file may have.
    """
    model = copy.deepcopy(model)
    for node in model.graph.node:
        del node.metadata_props[:]  # where in which source file each one came from
    onnx.helper.set_model_props(model, dict(metadata))
    if model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise ValueError(f"{path} would have {model.ByteSize() >> 20} MB; an ONNX file of one piece may have 2048 MB")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, os.fspath(path))


def operators(model: onnx.ModelProto) -> set[str]:
    """Return the operators of a model and its subgraphs, with their domain unless it is ONNX's own."""
    found = set()
    graphs: list[Any] = [model.graph]
    while graphs:
        for node in graphs.pop().node:
            found.add(f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type)
            graphs += [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return found


def _first_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _first_cause(error.__cause__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own progress and its notes on packages that nobody needs here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx._internal.exporter._registration", "onnxscript")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
