"""A training step up to the mask head never waits for the device."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils._pytree import tree_map

from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets
from tests.modeling.host_reads import HostReads
from tests.modeling.test_detector import build, make_batch


def packed_batch():
    images, boxlists = make_batch()
    return images, Targets.from_boxlists(boxlists)


def reads_of_a_step(model, batch, **options):
    """The waits of a training step, after a first one that may prepare things once."""
    step = make_step(model, **options)
    step(*batch, iteration=1)
    with HostReads() as reads:
        step(*batch, iteration=2)
    return reads.found


def make_step(model, **options):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3, momentum=0.9, fused=True)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    return TrainStep(model, optimizer, scheduler, Precision("cpu"), **options)


@pytest.mark.parametrize("network", [{"MODEL__RPN_ONLY": True}, {"MODEL__MASK_ON": False}])
def test_the_whole_step_without_masks(network):
    model, batch = build(**network), packed_batch()
    assert reads_of_a_step(model, batch, max_grad_norm=1.0) == []


def test_the_mask_head_reads_once():
    model, batch = build(), packed_batch()
    assert reads_of_a_step(model, batch) == ["aten::nonzero"]


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda x: x.sum().item(), "aten::_local_scalar_dense"),
        (lambda x: bool((x > 0).all()), "aten::_local_scalar_dense"),
        (lambda x: x[x > 0], "aten::index"),
        (lambda x: x.masked_select(x > 0), "aten::masked_select"),
        (lambda x: x.new_tensor([1.0, 2.0]), "aten::lift_fresh"),
        (lambda x: torch.as_tensor([(1, 2)], device=x.device), "aten::lift_fresh"),
        (lambda x: x.clone().index_put_((x > 0,), x.new_zeros(())), "aten::index_put_"),
    ],
)
def test_what_counts_as_a_read(read, name):
    x = torch.ones(3)
    with HostReads() as reads:
        read(x)
    assert name in reads.found


def test_what_does_not():
    x = torch.ones(3)
    index = torch.tensor([0, 2])
    with HostReads() as reads:
        torch.where(x > 0, x[index].sum(), -torch.inf).topk(2)
    assert reads.found == []


def losses_of_fakes(model):
    """The losses on tensors that have shapes only, so that reading a value is an error."""
    images, targets = packed_batch()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = lambda x: mode.from_tensor(x) if isinstance(x, torch.Tensor) else x  # noqa: E731
        images = ImageList(fake(images.tensors), images.image_sizes, fake(images.sizes))
        polygons = type(targets.polygons)(*map(fake, vars(targets.polygons).values()))
        targets = Targets(fake(targets.boxes), fake(targets.labels), polygons, targets.image_sizes)
        return tree_map(lambda loss: tuple(loss.shape), model(images, targets))


def test_shapes_alone_decide_what_is_computed():
    shapes = losses_of_fakes(build(MODEL__MASK_ON=False))
    assert set(shapes.values()) == {()}
    with pytest.raises(DynamicOutputShapeException, match="nonzero"):
        losses_of_fakes(build())


def test_fake_anchors_are_not_kept():
    model = build(MODEL__MASK_ON=False)
    losses_of_fakes(model)
    assert all(torch.isfinite(loss) for loss in model(*packed_batch()).values())
