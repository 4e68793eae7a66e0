"""ONNX files in onnxruntime beside PyTorch, family by family; the operators in them; float16 and int8."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.apps.export_images import compare
from maskrcnn_benchmark.export.program import FixedShapeDetector, InputShape, export_program
from tests.export.networks import FAMILIES, SHAPE, make_detector, make_inputs

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from maskrcnn_benchmark.export import onnx_file, precision  # noqa: E402
from maskrcnn_benchmark.export.onnx_run import OnnxRunner  # noqa: E402

pytestmark = pytest.mark.extras


def convert(detector: FixedShapeDetector, shape: InputShape = SHAPE):
    with torch.no_grad():
        names = list(detector(*shape.example()))
    return onnx_file.make_onnx(export_program(detector, shape), names)


def arrays(outputs):
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def agreement(detector, path, inputs, **limits):
    with torch.no_grad():
        return compare([(arrays(detector(*inputs)), arrays(OnnxRunner(path)(*inputs)))], **limits)


@pytest.mark.parametrize("family", FAMILIES)
def test_onnxruntime_finds_what_pytorch_finds(family, tmp_path):
    detector, inputs = make_detector(family), make_inputs()
    model = convert(detector)
    assert all("::" not in name for name in onnx_file.operators(model)), "operators of another domain"
    onnx_file.save_onnx(model, tmp_path / "model.onnx", {"some": "thing"})
    found = agreement(detector, tmp_path / "model.onnx", inputs)
    assert found.detections >= 20
    assert found.unmatched == 0
    assert found.box < 0.05
    assert found.score < 1e-4
    assert found.mask < 1e-3


def test_normalised_input_and_another_size(tmp_path):
    detector, shape = make_detector("mask"), InputShape(1, 64, 96, takes_pixels=False)
    onnx_file.save_onnx(convert(detector, shape), tmp_path / "model.onnx", {})
    images, sizes = make_inputs(InputShape(1, 64, 96))
    inputs = ((images.float() - detector.mean[:, None, None]) / detector.std[:, None, None], sizes)
    found = agreement(detector, tmp_path / "model.onnx", inputs)
    assert (found.unmatched, found.box < 0.05, found.score < 1e-4) == (0, True, True)
    assert found.detections >= 10
    with pytest.raises(Exception, match="Got: 128 Expected: 96"):
        OnnxRunner(tmp_path / "model.onnx")(torch.zeros(1, 3, 64, 128), sizes)


@pytest.mark.parametrize("offset", [0, 1])
def test_suppression_keeps_what_the_op_keeps(offset, tmp_path):
    class Suppress(torch.nn.Module):
        def forward(self, images, image_sizes):
            return {"keep": ops.batched_nms(images, image_sizes > 0, iou_threshold=0.5, offset=offset)}

    torch.manual_seed(offset)
    corners = torch.randint(0, 60, (6, 200, 2)).float()  # whole pixels: many overlaps of exactly the threshold
    boxes = torch.cat((corners, corners + torch.randint(0, 40, (6, 200, 2))), dim=-1)
    valid = (torch.rand(6, 200) < torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0, 1.0])[:, None]).long()
    program = torch.export.export(Suppress(), (boxes, valid))
    onnx_file.save_onnx(onnx_file.make_onnx(program, ["keep"]), tmp_path / "nms.onnx", {})
    keep = OnnxRunner(tmp_path / "nms.onnx")(boxes, valid)["keep"]
    expected = Suppress()(boxes, valid)["keep"]
    assert torch.equal(keep, expected)
    assert 0 < expected.sum() < valid.sum()


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_pooling_reads_what_the_op_reads(sampling_ratio, tmp_path):
    class Pool(torch.nn.Module):
        def forward(self, images, image_sizes):
            maps = [images, images[..., ::2, ::2], images[..., ::4, ::4]]
            options = {"output_size": (7, 5), "spatial_scales": (0.25, 0.125, 0.0625), "sampling_ratio": sampling_ratio}
            return {"pooled": ops.roi_align(maps, image_sizes, **options)}

    torch.manual_seed(0)
    maps, corners = torch.randn(2, 6, 32, 48), torch.rand(60, 2) * torch.tensor([200.0, 140.0]) - 10
    rois = torch.cat((torch.randint(-1, 2, (60, 1)).float(), corners, corners + torch.rand(60, 2) ** 2 * 400), dim=1)
    program = torch.export.export(Pool(), (maps, rois))
    onnx_file.save_onnx(onnx_file.make_onnx(program, ["pooled"]), tmp_path / "pool.onnx", {})
    pooled = OnnxRunner(tmp_path / "pool.onnx")(maps, rois)["pooled"]
    expected = Pool()(maps, rois)["pooled"]
    assert (expected[rois[:, 0] < 0] == 0).all()
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-4)


def test_equal_scores_keep_their_order(tmp_path):
    class Sort(torch.nn.Module):
        def forward(self, images, image_sizes):
            values, order = images.sort(dim=1, descending=True, stable=True)
            return {"values": values[:, :7] * 2, "order": order[:, :7] * 2}

    values = torch.randint(0, 4, (3, 50), generator=torch.Generator().manual_seed(0)).float()
    model = onnx_file.make_onnx(torch.export.export(Sort(), (values, values)), ["values", "order"])
    (top_k,) = (node for node in model.graph.node if node.op_type == "TopK")
    count = next(each for each in model.graph.initializer if each.name == top_k.input[1])
    assert onnx.numpy_helper.to_array(count).tolist() == [7], "all values are sorted where seven are wanted"
    onnx_file.save_onnx(model, tmp_path / "sort.onnx", {})
    outputs = OnnxRunner(tmp_path / "sort.onnx")(values, values)
    assert all(torch.equal(outputs[name], tensor) for name, tensor in Sort()(values, values).items())


def test_half_and_int8_models_run(tmp_path):
    detector, inputs = make_detector("mask"), make_inputs()
    model = convert(detector)
    sizes = {}
    variants = {
        "fp32": model,
        "fp16": precision.to_float16(model),
        "int8": precision.to_int8(model, [[tensor.numpy() for tensor in inputs]]),
    }
    for name, variant in variants.items():
        onnx_file.save_onnx(variant, tmp_path / f"{name}.onnx", {})
        sizes[name] = (tmp_path / f"{name}.onnx").stat().st_size
    # what stays in float32 is the anchors and the last layers, a large part of so small a network
    assert sizes["int8"] < sizes["fp16"] < 0.6 * sizes["fp32"]
    kinds = {node.op_type for node in variants["int8"].graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    half = agreement(detector, tmp_path / "fp16.onnx", inputs, min_score=0.6)
    assert half.detections > 10
    assert half.unmatched <= 0.2 * half.detections
    assert OnnxRunner(tmp_path / "int8.onnx")(*inputs)["valid"].any()
    for name in ("fp16", "int8"):
        types = {value.type.tensor_type.elem_type for value in variants[name].graph.output}
        assert types == {value.type.tensor_type.elem_type for value in model.graph.output}
