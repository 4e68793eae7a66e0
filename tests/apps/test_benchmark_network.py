"""What a benchmark does to a network: positives for a random one, and the operations of a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn_benchmark.apps.benchmark_network import (
    FlopCount,
    count_step,
    give_positives,
    put_on_objects,
    watch_network,
)
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.data.synthetic_batches import make_synthetic_loader
from maskrcnn_benchmark.engine.stages import FlopClock, StageRecorder
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import sample_regions
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.polygons import PackedPolygons
from maskrcnn_benchmark.structures.targets import Targets
from tests.apps.tiny_run import CONFIG, OPTIONS

JOB = Path(__file__).resolve().parents[2] / "configs" / "e2e_mask_rcnn_R_50_FPN_1x.yaml"


pytestmark = pytest.mark.usefixtures("one_thread")


def config_of(file, options):
    config = cfg.clone()
    config.merge_from_file(str(file))
    config.merge_from_list([word for pair in options.items() for word in pair])
    return config


def losses_of_shapes(model, height, width, objects=8):
    """A training forward pass on tensors that have a shape only."""
    images = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
    polygons = PackedPolygons(torch.zeros(objects * 4, 2), torch.arange(objects + 1) * 4, torch.arange(objects + 1))
    labels = torch.ones(1, objects, dtype=torch.int64)
    return sum(model(images, Targets(torch.zeros(1, objects, 4), labels, polygons, [(height, width)])).values())


def test_flops_of_the_published_job_are_the_analytic_ones():
    """Figures worked out by hand from the layers' shapes, in GFLOP an image of 800x1344 with 128 positives."""
    counter = FlopCounterMode(display=False)
    recorder = StageRecorder(FlopClock(counter))
    with FakeTensorMode(allow_non_fake_inputs=True):
        config = config_of(JOB, {"MODEL.ROI_MASK_HEAD.FIXED_SLOTS": True})
        model = build_detection_model(config).train()
        watch_network(recorder, model)
        with counter:
            recorder.begin_step()
            loss = losses_of_shapes(model, 800, 1344)
            recorder.end_step()
            forward = counter.get_total_flops()
            loss.backward()
        recorder.detach()
    (stages,) = recorder.read()
    giga = {name: value / 1e9 for name, value in stages.items()}
    expected = {"backbone": 165, "fpn": 122, "rpn_head": 106, "box_head": 15, "mask_head": 136}
    assert {name: giga[name] for name in expected} == pytest.approx(expected, abs=0.6)
    assert forward / 1e9 == pytest.approx(544, rel=0.01)
    assert counter.get_total_flops() / 1e9 == pytest.approx(544 + 1006, rel=0.01)


def test_flops_of_another_number_of_positives():
    """What is worked out from one counted step is what another step counts."""
    config = config_of(CONFIG, {key: str(value) for key, value in OPTIONS.items()})
    model = build_detection_model(config).train()
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(True)
    counts = {}
    for positives, size in ((4, (64, 96)), (12, (96, 96))):
        batch = next(iter(make_synthetic_loader(config, is_train=True, num_images=1, length=1, image_size=size)))
        vars(model.roi_heads).pop("losses", None)
        give_positives(model, positives)

        def step(batch=batch):
            sum(model(*batch[:2]).values()).backward()
            return 0

        counts[positives] = count_step(model, step, pixels=size[0] * size[1], backward=True)
        model.zero_grad()
    few, many = counts[4], counts[12]
    assert many.regions > few.regions >= 4
    assert few.of_step(pixels=few.pixels, regions=few.regions) == few.total
    assert few.of_step(pixels=many.pixels, regions=many.regions) == pytest.approx(many.total, rel=0.05)


def test_fixed_slots_compute_the_same_for_any_number_of_positives():
    count = FlopCount({"mask_head": 10.0}, 100.0, pixels=5, regions=2, passes=3, mask_follows_regions=False)
    assert count.of_step(pixels=5, regions=20) == 100.0
    assert count.of_step(pixels=10, regions=2) == 170.0


@pytest.mark.parametrize("count", [0, 3, 40])
def test_positives_are_as_many_as_asked_for(count):
    config = config_of(JOB, {})
    _, targets, _ = next(
        iter(make_synthetic_loader(config, is_train=True, num_images=3, length=1, image_size=(800, 1088)))
    )
    targets.labels[2] = 0  # an image without objects
    far = torch.tensor([[0.0, 0.0, 2.0, 2.0]]).expand(3, 100, 4)
    proposals = Proposals(far, torch.rand(3, 100), torch.zeros(3, 100, dtype=torch.bool))
    regions = sample_regions(
        put_on_objects(proposals, targets, count), targets, box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)),
        fg_iou_threshold=0.5, bg_iou_threshold=0.5, batch_size_per_image=512, positive_fraction=0.25,
    )  # fmt: skip
    objects = targets.valid.sum(1)
    expected = torch.where(objects > 0, objects.clamp(min=count), 0)
    assert (regions.labels > 0).sum(1).tolist() == expected.tolist()
