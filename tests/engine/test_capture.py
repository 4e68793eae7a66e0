"""The trunk, captured: the same numbers as without, for the shapes that were captured and for others."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.engine.capture import capture_trunk
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets
from tests.apps.tiny_run import tiny_run
from tests.engine.graphs_on_cpu import GraphsOnCpu
from tests.engine.test_two_processes import start
from tests.modeling.test_detector import build, make_batch

__all__ = ["tiny_run"]  # a fixture

CPU = torch.device("cpu")
SHAPES = ((96, 128), (128, 96))


@pytest.fixture
def graphs(monkeypatch):
    stand_in = GraphsOnCpu()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", stand_in)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    return stand_in


def record(model, precision=None, shapes=SHAPES):
    """Capture as on a GPU; only the device says that it is one."""
    precision = precision or Precision("cpu")
    device = torch.device("cuda")
    real_zeros = torch.zeros
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "zeros", lambda *size, device=None, **options: real_zeros(*size, **options))
        capture_trunk(model, "cuda_graphs", shapes=shapes, num_images=2, precision=precision, device=device)


def compile_trunk(model, backend):
    settings = {"shapes": SHAPES, "num_images": 2, "precision": Precision("cpu"), "device": CPU}
    capture_trunk(model, "compile", **settings, compile_backend=backend)


def batches():
    """Landscape twice, portrait, and one of a shape that is not captured."""
    images, boxlists = make_batch()
    targets = Targets.from_boxlists(boxlists)
    turned = ImageList(images.tensors.transpose(2, 3).contiguous(), [(w, h) for h, w in images.image_sizes])
    wide = ImageList(nn.functional.pad(images.tensors, (0, 32)), images.image_sizes)
    return [(images, targets), (images, targets), (turned, targets), (wide, targets)]


def train(model, precision=None, **options):
    """Losses of each step, and the weights at the end."""
    precision = precision or Precision("cpu")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    step = TrainStep(model.train(), optimizer, scheduler, precision, **options)
    step.clear_gradients()
    losses = []
    for iteration, batch in enumerate(batches(), 1):
        torch.manual_seed(iteration)
        losses.append({name: loss.item() for name, loss in step(*batch, iteration=iteration).items()})
    return losses, {name: tensor.clone() for name, tensor in model.state_dict().items()}


BATCH_NORM = {
    "MODEL__RESNETS__STEM_FUNC": "StemWithBatchNorm",
    "MODEL__RESNETS__TRANS_FUNC": "BasicBlockWithBatchNorm",
}


@pytest.mark.parametrize("options", [{}, {"accumulate_steps": 2}, {"max_grad_norm": 0.1}])
@pytest.mark.parametrize("network", [{}, {"MODEL__ROI_MASK_HEAD__FIXED_SLOTS": True}, BATCH_NORM])
def test_recorded_steps_equal_those_without(graphs, network, options):
    expected, expected_state = train(build(**network), **options)
    model = build(**network)
    record(model)
    losses, state = train(model, **options)
    assert losses == expected
    assert list(state) == list(expected_state)
    for name, tensor in state.items():
        assert torch.equal(tensor, expected_state[name]), name


def test_one_record_a_shape_from_one_pool(graphs):
    model = build()
    record(model.eval())
    assert [tuple(images.shape) for images, _, _ in graphs.calls] == [(2, 3, 96, 128), (2, 3, 128, 96)]
    assert {pool for _, _, pool in graphs.calls} == {"pool"}
    assert all(training for _, training, _ in graphs.calls)
    assert model.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_channels_last(graphs, dtype):
    precision = Precision("cpu", dtype, channels_last=True)
    model = precision.place_model(build(), CPU)
    record(model, precision, SHAPES[:1])
    ((images, _, _),) = graphs.calls
    assert images.dtype == dtype
    assert images.is_contiguous(memory_format=torch.channels_last)
    losses, state = train(model, precision)
    expected, _ = train(precision.place_model(build(), CPU), Precision("cpu", dtype, channels_last=True))
    assert losses[0] == expected[0]
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_running_statistics_forget_the_warm_up(graphs):
    model = build(**BATCH_NORM)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    record(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.data_ptr() == places[name]


def test_weights_loaded_later_count(graphs):
    model = build()
    record(model)
    torch.manual_seed(7)
    state = {
        name: tensor + 0.01 * torch.randn_like(tensor) if "fpn" in name else tensor
        for name, tensor in model.state_dict().items()
    }
    other = build()
    for each in (model, other):
        each.load_state_dict(state)
    assert train(model)[0] == train(other)[0]


def test_evaluation_is_never_a_record(graphs):
    model = build(MODEL__ROI_HEADS__SCORE_THRESH=0.0)
    record(model)
    images, _ = make_batch()
    with torch.no_grad():
        found, expected = model.eval()(images), build(MODEL__ROI_HEADS__SCORE_THRESH=0.0).eval()(images)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.bbox, other.bbox)


def test_the_compiled_trunk_is_one_graph_and_equals_eager():
    expected, expected_state = train(build())
    model = build()
    capture_trunk(
        model,
        "compile",
        shapes=SHAPES,
        num_images=2,
        precision=Precision("cpu"),
        device=CPU,
        compile_backend="aot_eager",
    )
    losses, state = train(model)
    for found, wanted in zip(losses, expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, expected_state[name], rtol=1e-4, atol=1e-5, msg=name)


def test_compiled_graphs_are_those_of_the_shapes(monkeypatch):
    seen = []

    def backend(graph, inputs):
        seen.append([tuple(each.shape) for each in inputs if each.dim() == 4 and each.shape[1] == 3][-1])
        return graph.forward

    model = build()
    compile_trunk(model, backend)
    train(model)
    assert seen == [(2, 3, 96, 128), (2, 3, 128, 96)]


def test_eager_leaves_the_network_alone():
    capture_trunk(None, "eager", shapes=SHAPES, num_images=2, precision=Precision("cpu"), device=CPU)
    capture_trunk(None, "compile", shapes=(), num_images=2, precision=Precision("cpu"), device=CPU)


def test_what_cannot_be_captured_is_said():
    settings = {"shapes": SHAPES, "num_images": 2, "precision": Precision("cpu"), "device": CPU}
    with pytest.raises(ValueError, match="cuda_graphs needs CUDA, not cpu; set it to compile or eager"):
        capture_trunk(build(), "cuda_graphs", **settings)
    with pytest.raises(ValueError, match="one of eager, cuda_graphs, compile, got 'on'"):
        capture_trunk(build(), "on", **settings)


@pytest.mark.slow
def test_two_processes_share_the_gradients_of_a_record(tmp_path, repository):
    start("captured_processes", 2, tmp_path, repository)
    ranks = [torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in range(2)]
    for steps in (1, 2):
        for name, tensor in ranks[0][False, steps].items():
            assert torch.equal(ranks[1][False, steps][name], tensor), name
            for rank in ranks:
                assert torch.equal(rank[True, steps][name], tensor), name


@pytest.mark.slow
def test_a_run_with_a_compiled_trunk(tiny_run):
    """The real compiler, from the command's options to the evaluation."""
    first = []
    for capture in ("eager", "compile"):
        tiny_run.output = tiny_run.folder / capture
        tiny_run.train(keys={"MODEL.CAPTURE": capture, "INPUT.SHAPE_BUCKETS": "((64, 96), (96, 64))"})
        rows = map(json.loads, (tiny_run.output / "metrics.jsonl").read_text().splitlines())
        first.append(next(row for row in rows if row["iteration"] == 1))
    losses = [{name: value for name, value in row.items() if "loss" in name} for row in first]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
