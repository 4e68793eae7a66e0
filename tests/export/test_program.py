"""The network in fixed slots, as a program of torch.export with and without the package's ops, and compiled."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.export import portable
from maskrcnn_benchmark.export.program import InputShape, export_program
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import heat_maps_to_keypoints
from tests.export.networks import FAMILIES, SHAPE, make_detector, make_inputs, make_network, published_detections


@pytest.fixture(autouse=True)
def one_thread():
    """The networks are so small that a second thread costs more than it gives where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same(outputs, expected):
    assert list(outputs) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(outputs[name], tensor), name


@pytest.mark.parametrize("family", FAMILIES)
def test_slots_hold_what_the_network_finds(family):
    detector, inputs = make_detector(family), make_inputs()
    with torch.no_grad():
        outputs = detector(*inputs)
    for index, boxlist in enumerate(published_detections(detector, *inputs)):
        own = {name: tensor[index] for name, tensor in outputs.items()}
        valid = own.pop("valid")
        assert len(boxlist) > 5
        assert all((tensor[~valid] == 0).all() for tensor in own.values())
        torch.testing.assert_close(own["boxes"][valid], boxlist.bbox, rtol=1e-5, atol=1e-3)
        scores = boxlist.get_field("objectness" if family == "rpn" else "scores")
        torch.testing.assert_close(own["scores"][valid], scores, rtol=1e-4, atol=1e-5)
        assert scores.unique().numel() > 5
        assert ("labels" in own) == (family != "rpn")
        if "labels" in own:
            assert torch.equal(own["labels"][valid], boxlist.get_field("labels"))
        if boxlist.has_field("mask"):
            torch.testing.assert_close(own["masks"][valid], boxlist.get_field("mask")[:, 0], rtol=1e-4, atol=1e-4)
        if boxlist.has_field("keypoints"):
            points, _ = heat_maps_to_keypoints(own["keypoint_maps"][valid], own["boxes"][valid])
            torch.testing.assert_close(points, boxlist.get_field("keypoints").keypoints, rtol=0, atol=1e-2)


@pytest.mark.parametrize("family", ["mask", pytest.param("retinanet", marks=pytest.mark.slow)])
def test_an_exported_program_is_the_network(family, tmp_path):
    detector, inputs = make_detector(family), make_inputs()
    torch.export.save(export_program(detector, SHAPE), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    with torch.no_grad():
        assert_same(program(*inputs), detector(*inputs))
    with pytest.raises(AssertionError, match=r"images.size\(\)\[2\] == 96"):
        program(*make_inputs(InputShape(2, 128, 96)))


@pytest.mark.slow
def test_a_portable_program_runs_without_the_package(tmp_path):
    detector, inputs = make_detector("mask"), make_inputs()
    torch.export.save(export_program(detector, SHAPE, portable=True), tmp_path / "model.pt2")
    with torch.no_grad():
        torch.save((inputs, detector(*inputs)), tmp_path / "expected.pt")
    code = """if True:
        import sys, torch
        program = torch.export.load("model.pt2").module()
        inputs, expected = torch.load("expected.pt")
        with torch.no_grad():
            outputs = program(*inputs)
        assert all(torch.equal(outputs[name], tensor) for name, tensor in expected.items())
        assert not any(name.startswith("maskrcnn_benchmark") for name in sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_a_network_that_adapts_its_sampling_cannot_be_portable():
    with pytest.raises(ValueError, match="POOLER_SAMPLING_RATIO 0"):
        export_program(make_detector("c4"), SHAPE, portable=True)


@pytest.mark.slow
def test_an_op_without_portable_form_is_named():
    with pytest.raises(ValueError, match=r"mrcnn\.deform_conv"):
        export_program(make_detector("dcn"), SHAPE, portable=True)


def test_a_head_without_slots_is_named():
    model = make_network("faster")
    model.roi_heads.further_names = ("mine",)
    model.roi_heads.add_module("mine", torch.nn.Identity())
    with pytest.raises(TypeError, match=r"head mine \(Identity\) has no method slot_fields"):
        model.detect_slots(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))


@pytest.mark.parametrize("offset", [0, 1])
def test_portable_suppression_is_the_op(offset):
    torch.manual_seed(0)
    corners = torch.randint(0, 40, (5, 60, 2)).float()  # whole pixels: many overlaps of exactly the threshold
    boxes = torch.cat((corners, corners + torch.randint(-1, 30, (5, 60, 2))), dim=-1)
    valid = torch.rand(5, 60) < torch.tensor([0.0, 0.3, 0.9, 1.0, 1.0])[:, None]
    keep = portable.batched_nms(boxes, valid, 0.5, offset)
    assert torch.equal(keep, ops.batched_nms(boxes, valid, iou_threshold=0.5, offset=offset))
    assert 0 < keep.sum() < valid.sum()


@pytest.mark.parametrize("num_levels", [1, 3])
def test_portable_pooling_is_the_op(num_levels):
    torch.manual_seed(0)
    features = [torch.randn(2, 5, 32 >> level, 48 >> level) for level in range(num_levels)]
    corners = torch.rand(40, 2) * torch.tensor([180.0, 120.0]) - 20
    rois = torch.cat((torch.randint(-1, 2, (40, 1)).float(), corners, corners + torch.rand(40, 2) * 300 - 5), dim=1)
    rois[3, 2] = torch.nan
    scales = [0.25 / 2**level for level in range(num_levels)]
    levels = torch.arange(40) % num_levels if num_levels > 1 else None
    arguments = (features, rois, levels, [3, 4], scales, 2)
    assert torch.equal(portable.roi_align(*arguments), torch.ops.mrcnn.roi_align(*arguments))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mask", "retinanet", "c4"])
def test_the_whole_network_compiles_as_one_graph(family):
    detector, inputs = make_detector(family), make_inputs()
    compiled = torch.compile(detector, fullgraph=True, dynamic=False)
    with torch.no_grad():
        expected, outputs = detector(*inputs), compiled(*inputs)
    for name, tensor in expected.items():
        torch.testing.assert_close(outputs[name], tensor, rtol=1e-4, atol=1e-3)
