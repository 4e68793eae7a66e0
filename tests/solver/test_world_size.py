"""The schedule for another number of processes, by its properties, and how far a run has come over such changes."""

from __future__ import annotations

import logging
import random

import pytest
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config import validate
from maskrcnn_benchmark.solver import WarmupMultiStepLR
from maskrcnn_benchmark.solver.world_size import (
    Progress,
    Schedule,
    Stretch,
    make_progress,
    make_schedule_for_world,
    nearest_batch,
)


def schedule(images_per_batch=12, **changes):
    values = {
        "base_lr": 0.02, "warmup_slope": 0.0, "max_iter": 900, "checkpoint_period": 90, "test_period": 0,
        "steps": (600, 780), "warmup_iters": 60,
    }  # fmt: skip
    return Schedule(images_per_batch, **{**values, **changes})


def test_nearest_batch_is_the_nearest_multiple():
    for images in range(1, 70):
        for world_size in range(1, 20):
            found = nearest_batch(images, world_size)
            multiples = [world_size * k for k in range(1, 80)]
            distance = min(abs(images - each) for each in multiples)
            assert found == min(each for each in multiples if abs(images - each) == distance)
            if images % world_size == 0:
                assert found == images


def test_as_many_images_in_all_and_at_each_event():
    draw = random.Random(0)
    for _ in range(300):
        before = schedule(
            draw.randrange(1, 129), max_iter=draw.randrange(1000, 90000), checkpoint_period=draw.randrange(100, 2000),
            test_period=draw.choice((0, 700)), warmup_iters=draw.randrange(600),
        )  # fmt: skip
        size = nearest_batch(before.images_per_batch, draw.randrange(1, 33))
        after = before.scaled(size)
        assert after.base_lr / before.base_lr == pytest.approx(size / before.images_per_batch)
        for name in ("max_iter", "checkpoint_period", "test_period", "warmup_iters"):
            old, new = getattr(before, name) * before.images_per_batch, getattr(after, name) * size
            assert abs(new - old) <= max(size / 2, (getattr(after, name) == 1) * size), name
        for old, new in zip(before.steps, after.steps, strict=True):
            assert abs(new * size - old * before.images_per_batch) <= size / 2
        assert before.scaled(before.images_per_batch) is before


@pytest.mark.parametrize(
    ("method", "factor"), [("linear", 0.25), ("constant", 0.25), ("mlperf_linear", 0.02 / 90), ("mlperf_linear", 5e-5)]
)
@pytest.mark.parametrize("size", [4, 6, 18, 24])
def test_the_rate_at_an_image_is_scaled_by_the_batch(method, factor, size):
    before = schedule(12, warmup_slope=factor if method == "mlperf_linear" else 0.0)
    after = before.scaled(size)

    def rates(plan):
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": plan.base_lr * scale} for scale in (1, 2)]
        optimizer = torch.optim.SGD(groups, lr=plan.base_lr)
        found = WarmupMultiStepLR(
            optimizer, plan.steps, warmup_factor=plan.warmup_slope or factor, warmup_iters=plan.warmup_iters,
            warmup_method=method,
        )  # fmt: skip
        for step in range(plan.max_iter):
            found.last_epoch = step
            yield found.get_lr()

    old, new = list(rates(before)), list(rates(after))
    for step in range(after.max_iter):
        images = step * size
        if images % 12 == 0:
            assert new[step] == pytest.approx([rate * size / 12 for rate in old[images // 12]], rel=1e-9, abs=1e-15)


def test_steps_that_fall_together_are_named():
    with pytest.raises(ValueError, match=r"SOLVER.STEPS \(3, 4\).*further apart"):
        schedule(2, steps=(3, 4)).scaled(16)


def changed(**solver):
    config = defaults.clone()
    config.MODEL.DEVICE = "cpu"
    for name, value in solver.items():
        config.SOLVER[name] = value
    return config


def test_the_key_switches_it():
    config = changed(IMS_PER_BATCH=16)
    before = config.dump()
    assert make_schedule_for_world(config, 3) == ""
    assert config.dump() == before
    with pytest.raises(ValueError, match=r"cannot be divided among 3.*SOLVER.SCALE_TO_WORLD True"):
        validate(config, world_size=3)

    config = changed(IMS_PER_BATCH=16, SCALE_TO_WORLD=True)
    assert make_schedule_for_world(config, 4) == ""
    said = make_schedule_for_world(config, 3)
    assert "IMS_PER_BATCH 15, BASE_LR 0.0009375, MAX_ITER 42667, STEPS (32000,)" in said
    assert "\n" not in said
    solver = config.SOLVER
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS) == (15, 42667, (32000,), 533)
    assert (solver.BASE_LR, solver.CHECKPOINT_PERIOD, solver.TEST_PERIOD) == (pytest.approx(0.001 * 15 / 16), 2667, 0)
    assert config.TEST.IMS_PER_BATCH == 9
    validate(config, world_size=3)


def test_mlperf_warm_up_changes_its_slope():
    config = changed(IMS_PER_BATCH=3, SCALE_TO_WORLD=True, WARMUP_METHOD="mlperf_linear", WARMUP_FACTOR=0.001)
    make_schedule_for_world(config, 2)
    assert config.SOLVER.WARMUP_FACTOR == pytest.approx(0.001 * (2 / 3) ** 2)
    config = changed(IMS_PER_BATCH=3, SCALE_TO_WORLD=True, WARMUP_FACTOR=0.25)
    make_schedule_for_world(config, 2)
    assert config.SOLVER.WARMUP_FACTOR == 0.25


def test_progress_counts_images_over_many_changes():
    draw = random.Random(1)
    for _ in range(100):
        world_size, size = draw.randrange(1, 9), draw.randrange(8, 33)
        progress, iteration, images = Progress(world_size, size), 0, 0
        for _ in range(12):
            done = draw.randrange(50)
            iteration, images = iteration + done, images + done * size
            world_size, size = draw.randrange(1, 9), draw.randrange(8, 33)
            progress = Progress.from_state(progress.state_dict())
            progress, iteration = progress.resumed(
                iteration, world_size=world_size, images_per_batch=size, by_images=True
            )
            present = (iteration - progress.first_iteration) * size
            assert sum(each.images for each in progress.earlier) + present == images
            assert abs(iteration * size - images) <= size / 2, "errors of rounding must not add up"


def test_progress_stays_where_nothing_changes():
    progress = Progress(2, 4, 10, (Stretch(3, 6, 5),))
    assert progress.resumed(17, world_size=2, images_per_batch=4, by_images=True) == (progress, 17)


def test_without_the_key_iterations_stay_iterations():
    progress, iteration = Progress(2, 4).resumed(10, world_size=1, images_per_batch=8, by_images=False)
    assert (progress, iteration) == (Progress(1, 8, 10, (Stretch(2, 4, 10),)), 10)


def test_a_new_count_is_a_whole_number_of_updates():
    _, iteration = Progress(2, 4).resumed(30, world_size=1, images_per_batch=3, by_images=True, multiple=4)
    assert iteration == 40
    _, iteration = Progress(2, 4).resumed(28, world_size=1, images_per_batch=3, by_images=True, multiple=4)
    assert iteration == 36


def test_resume_says_what_it_does(caplog):
    config = changed(IMS_PER_BATCH=2, SCALE_TO_WORLD=True)
    config.SOLVER.ACCUMULATE_STEPS, config.SOLVER.ACCUMULATE_GRAD = 3, True
    scheduler = WarmupMultiStepLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), (5,), warmup_iters=0)
    arguments = {"iteration": 10, "progress": Progress(1, 3).state_dict()}
    with caplog.at_level(logging.WARNING, logger="maskrcnn_benchmark"):
        logging.getLogger("maskrcnn_benchmark").propagate = True
        progress = make_progress(config, arguments, scheduler, 2)
    assert progress == Progress(2, 2, 15, (Stretch(1, 3, 10),))
    assert arguments == {"iteration": 15, "progress": progress.state_dict()}
    assert (scheduler.last_epoch, scheduler.get_last_lr()) == (5, [pytest.approx(0.1)])
    (line,) = caplog.messages
    assert "iteration 10 is now iteration 15" in line

    published = {"iteration": 10}  # without any progress: it went as this run does
    assert make_progress(config, published, scheduler, 4) == Progress(4, 2)
    assert published["iteration"] == 10
