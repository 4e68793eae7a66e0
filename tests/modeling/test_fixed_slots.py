"""The mask head on a fixed number of regions: the same losses and gradients, and nothing depends on a value."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import SampledRegions
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import mask_loss, positive_regions
from maskrcnn_benchmark.modeling.sampling import sample_slots
from tests.modeling.test_detector import build, make_batch, make_target
from tests.modeling.test_no_host_reads import losses_of_fakes, packed_batch, reads_of_a_step

FIXED = {"MODEL__ROI_MASK_HEAD__FIXED_SLOTS": True}


def losses_and_gradients(batch, **changes):
    model = build(**changes)
    torch.manual_seed(3)
    losses = model(*batch)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("empty", [(), (0,), (0, 1)])
@pytest.mark.parametrize("samples", [8, 10**6])
def test_equal_to_the_compact_form(empty, samples):
    images, targets = make_batch()
    for i in empty:
        targets[i] = make_target([], [], targets[i].size)
    size = {"MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": samples}
    expected, expected_gradients = losses_and_gradients((images, targets), **size)
    losses, gradients = losses_and_gradients((images, targets), **size, **FIXED)
    assert (losses["loss_mask"] > 0) == (len(empty) < 2)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-7)
    for name, gradient in gradients.items():
        assert (gradient - expected_gradients[name]).norm() <= 1e-5 * expected_gradients[name].norm(), name


def test_slots_by_hand():
    regions = SampledRegions(
        boxes=torch.arange(24.0).reshape(2, 3, 4),
        valid=torch.tensor([[True, True, True], [True, True, False]]),
        labels=torch.tensor([[2, 0, 0], [1, 3, 3]]),
        matches=torch.tensor([[4, 0, 0], [1, 2, 2]]),
        target_deltas=torch.zeros(2, 3, 4),
    )
    fixed = positive_regions(regions, num_targets=5, num_slots=2)
    assert fixed.rois[:, 0].tolist() == [0, -1, 1, 1]
    assert fixed.instances.tolist() == [4, -1, 6, 7]
    assert fixed.valid.tolist() == [True, False, True, True]
    compact = positive_regions(regions, num_targets=5, num_slots=None)
    for column, expected in zip(compact, fixed, strict=True):
        assert torch.equal(column, expected[fixed.valid])
    assert len(positive_regions(regions, num_targets=5, num_slots=100).rois) == 6


def test_the_sampler_puts_positives_first():
    labels = torch.randint(-1, 3, (4, 200), generator=torch.Generator().manual_seed(0))
    index, valid = sample_slots(labels, num_samples=40, positive_fraction=0.25)
    positive = (labels.gather(1, index) > 0) & valid
    assert positive[:, :10].all()
    assert not positive[:, 10:].any()


def test_an_empty_slot_has_no_part_in_the_loss():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 2, 2, requires_grad=True)
    labels, masks = torch.tensor([1, 2, 3]), torch.randint(0, 2, (3, 2, 2)).float()
    expected = mask_loss(logits[:2], labels[:2], masks[:2])
    loss = mask_loss(logits, labels, masks, torch.tensor([True, True, False]))
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[2].any()
    assert mask_loss(logits, labels, masks, torch.zeros(3, dtype=torch.bool)) == 0


def test_the_whole_step_reads_nothing():
    model, batch = build(**FIXED), packed_batch()
    assert reads_of_a_step(model, batch, max_grad_norm=1.0) == []


def test_shapes_alone_decide_what_is_computed():
    assert set(losses_of_fakes(build(**FIXED)).values()) == {()}


@pytest.mark.slow
def test_all_losses_compile_into_one_graph():
    model, batch = build(**FIXED), packed_batch()
    torch.manual_seed(3)
    expected = model(*batch)
    sum(expected.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    torch.manual_seed(3)
    losses = torch.compile(model, fullgraph=True, backend="aot_eager")(*batch)
    sum(losses.values()).backward()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        assert (model.get_parameter(name).grad - gradient).norm() <= 1e-5 * gradient.norm(), name
