"""ONNX models in float16 and in int8: the layers only; anchors, boxes, suppression and pooling stay in float32."""

from __future__ import annotations

import ast
import copy
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from maskrcnn_benchmark.export.program import INPUT_NAMES

_SCOPES = "pkg.torch.onnx.name_scopes"
# Modules that hold layers; the pooler among them moves boxes, whose coordinates need float32.
_LAYERS = re.compile(r"model\.(backbone|rpn\.head|roi_heads\.\w+\.(feature_extractor(?!\.pooler)|predictor))\b")
# The last layers: an error there is one of the score, box or mask itself, and they cost little.
_LAST_LAYERS = re.compile(r"\.(cls_logits|bbox_pred|cls_score|mask_fcn_logits|kps_score_lowres)$")
_QUANTIZED = ("Conv", "ConvTranspose", "Gemm")


def _module_of(node: onnx.NodeProto) -> str:
    """Return the dotted name of the module in which the exporter met a node; "" outside of all."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    names = [name for name in ast.literal_eval(scopes)[:-1] if name]
    return names[-1] if names else ""


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose layers compute in float16; inputs and outputs keep their types.

    Args:
        model: of `make_onnx`.
    """
    layers = {node.name for node in model.graph.node if _LAYERS.match(_module_of(node))}
    result = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    graph = result.graph
    nodes = [node for node in graph if node.name in layers]
    halves: dict[str, ir.Value] = {}
    for node in nodes:
        for index, value in enumerate(node.inputs):
            is_result = value is not None and value.producer() is not None and value.producer().name in layers
            # the further inputs of Resize are sizes and factors
            if value is None or is_result or value.dtype != ir.DataType.FLOAT or (node.op_type == "Resize" and index):
                continue
            if value.name not in halves:
                halves[value.name] = _half_of(graph, value, before=node)
            node.replace_input_with(index, halves[value.name])
    for node in nodes:
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                _widen(graph, output, layers)
    ir.passes.common.RemoveUnusedNodesPass()(result)
    return ir.to_proto(result)


def _half_of(graph: ir.Graph, value: ir.Value, *, before: ir.Node) -> ir.Value:
    """Return a value in float16: a constant anew, anything else by a node in front of the first one that wants it."""
    name = f"{value.name}_float16"
    if value.const_value is not None:
        half = ir.val(name, const_value=ir.tensor(value.const_value.numpy().astype(np.float16), name=name))
        graph.register_initializer(half)
        return half
    return _cast(graph, value, name, ir.DataType.FLOAT16, before=before)


def _widen(graph: ir.Graph, value: ir.Value, layers: set[str]) -> None:
    """Make a layer's result float16, and float32 again for whoever is no layer.

    Raises:
        ValueError: it is a result of the graph.
    """
    readers = [use for use in value.uses() if use.node.name not in layers]
    value.dtype = ir.DataType.FLOAT16
    if value.is_graph_output():
        raise ValueError(f"the output {value.name} comes straight from a layer, which float16 does not allow for")
    if readers:
        wide = _cast(graph, value, f"{value.name}_float32", ir.DataType.FLOAT, after=value.producer())
        for use in readers:
            use.node.replace_input_with(use.idx, wide)


def _cast(
    graph: ir.Graph,
    value: ir.Value,
    name: str,
    dtype: ir.DataType,
    *,
    before: ir.Node | None = None,
    after: ir.Node | None = None,
) -> ir.Value:
    """Add a node that casts a value, and return its result."""
    node = ir.node("Cast", [value], {"to": dtype}, name=f"cast_{name}")
    result = node.outputs[0]
    result.name, result.dtype, result.shape = name, dtype, value.shape
    if before is not None:
        graph.insert_before(before, node)
    else:
        graph.insert_after(after, node)
    return result


class _Reader(CalibrationDataReader):
    """Hands inputs to the calibration one after the other.

    Args:
        inputs: pairs of images and image_sizes.
    """

    def __init__(self, inputs: Iterable[Sequence[np.ndarray]]) -> None:
        self._inputs: Iterator[Sequence[np.ndarray]] = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next inputs by name; None at the end."""
        values = next(self._inputs, None)
        return None if values is None else dict(zip(INPUT_NAMES, values, strict=True))


def to_int8(model: onnx.ModelProto, inputs: Iterable[Sequence[np.ndarray]], **options: Any) -> onnx.ModelProto:
    """Return a copy whose convolutions and fully connected layers compute in int8, all but the last ones.

    Post-training, static: pairs of QuantizeLinear and DequantizeLinear around each layer, one scale for each output
    channel of its weights, one for its input, which is symmetric about zero, as TensorRT wants it.

    Args:
        model: of `make_onnx`.
        inputs: images and image_sizes, like those that the model will see.
        options: that go to onnxruntime's quantize_static in place of the ones here.
    """
    excluded = [
        node.name
        for node in model.graph.node
        if node.op_type in _QUANTIZED and (not _LAYERS.match(_module_of(node)) or _LAST_LAYERS.search(_module_of(node)))
    ]
    settings = {
        "quant_format": QuantFormat.QDQ,
        "op_types_to_quantize": list(_QUANTIZED),
        "per_channel": True,
        "activation_type": QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "nodes_to_exclude": excluded,
        "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True},
    } | options
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a pass that has been run already
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            quantize_static(copy.deepcopy(model), path, _Reader(inputs), **settings)
            return onnx.load(path)
    finally:
        root.setLevel(level)
