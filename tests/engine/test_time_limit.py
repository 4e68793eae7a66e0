"""A run that ends by a clock, here moved by hand: what is left of the budget, and repeating what was decided."""

from __future__ import annotations

import multiprocessing

import pytest
import torch

from maskrcnn_benchmark.engine.time_limit import Decisions, FittedSchedule, TimeLimit
from maskrcnn_benchmark.engine.trainer import do_train
from tests.engine.stand_ins import TinyLoader, make_run


class Clock:
    """Seconds that pass with each batch."""

    def __init__(self, *, per_batch, now=0.0):
        self.now, self.per_batch = now, per_batch

    def __call__(self):
        return self.now


class Ticking(TinyLoader):
    """A loader whose batches take time."""

    def __init__(self, length, clock, **options):
        super().__init__(length, **options)
        self.clock = clock

    def __iter__(self):
        for batch in super().__iter__():
            self.clock.now += self.clock.per_batch(self) if callable(self.clock.per_batch) else self.clock.per_batch
            yield batch


def train(folder, length, clock, *, period=0, start=0, **options):
    """A run under a limit; the limit, the weights and the checkpoint's content."""
    model, optimizer, scheduler, checkpointer = make_run(folder)
    arguments = {"iteration": 0}
    if start:
        arguments.update(checkpointer.load())
    limit = TimeLimit(length, clock=clock, schedule=scheduler, **options)
    loader = Ticking(length, clock, start_iter=arguments["iteration"])
    do_train(model, loader, optimizer, scheduler, checkpointer, "cpu", period, arguments, time_limit=limit)
    return limit, arguments["iteration"], torch.load(folder / "model_final.pth", weights_only=True)


def assert_same(a, b):
    assert a["iteration"] == b["iteration"]
    assert a["scheduler"] == b["scheduler"]
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    momenta = [[e["momentum_buffer"] for e in data["optimizer"]["state"].values()] for data in (a, b)]
    assert all(torch.equal(x, y) for x, y in zip(*momenta, strict=True))


@pytest.mark.parametrize("reserve", [0.0, 900.0])
@pytest.mark.parametrize("seconds", [13.0, 29.0])
def test_the_budget_is_met_within_one_percent(tmp_path, seconds, reserve):
    clock = Clock(per_batch=seconds, now=1800.0)  # the data took half an hour
    limit, iteration, final = train(tmp_path, 20000, clock, budget=7200.0, reserve=lambda: reserve)
    end = clock.now + reserve
    assert 0.99 * 7200 <= end <= 7200
    assert final["iteration"] == iteration == limit.last == limit.decisions.last < 20000
    assert limit.is_short


def test_with_time_to_spare_nothing_changes(tmp_path):
    plain = train(tmp_path / "plain", 12, Clock(per_batch=1.0))[2]
    limit, _, limited = train(tmp_path / "limited", 12, Clock(per_batch=1.0), budget=1000.0, fit_after=4)
    assert_same(plain, limited)
    assert not limit.is_short
    assert limit.decisions.last is None
    assert limit.decisions.fitted.max_iter == 12


def test_a_run_cut_short_equals_one_of_that_length_at_the_same_rates(tmp_path):
    clock = Clock(per_batch=1.0)
    limit, iteration, cut = train(tmp_path / "cut", 100, clock, budget=10.5)
    assert iteration == 10
    repeated = train(tmp_path / "repeated", 100, Clock(per_batch=7.0), decisions=limit.decisions)[2]
    assert_same(cut, repeated)
    assert_same(cut, train(tmp_path / "short", 10, Clock(per_batch=1.0))[2])  # its steps lie where they lay


def test_the_fitted_schedule_fills_the_budget_and_is_repeated(tmp_path):
    clock = Clock(per_batch=8.0, now=10.0)
    limit, iteration, first = train(
        tmp_path / "first", 1000, clock, budget=1000.0, reserve=lambda: 30.0, fit_after=20, further=0.0
    )
    fitted = limit.decisions.fitted
    assert fitted.max_iter == iteration == 120  # 20 were done at 170 s; (1000 - 30 - 170) / 8 = 100 more
    assert 0.99 * 1000 <= clock.now + 30 <= 1000
    assert (fitted.after, fitted.steps, fitted.seconds_per_iteration) == (20, (round(6 * 0.12),), 8.0)
    assert limit.decisions.last is None

    decisions = Decisions.from_dict(limit.decisions.to_dict())
    again = train(tmp_path / "again", 1000, Clock(per_batch=50.0), decisions=decisions)[2]
    assert_same(first, again)


def test_evaluations_on_the_way_are_part_of_the_fit(tmp_path):
    limit, *_ = train(tmp_path, 1000, Clock(per_batch=8.0), budget=1000.0, fit_after=20, further=2.0)
    assert limit.decisions.fitted.max_iter == 20 + int((1000 - 160) / 10)


def test_rates_follow_the_fitted_schedule(tmp_path):
    _, optimizer, scheduler, _ = make_run(tmp_path)  # step at 6, warm-up of 3
    limit = TimeLimit(100, budget=1.0, schedule=scheduler)
    scheduler.milestones, scheduler.warmup_iters = (40, 80), 20
    for _ in range(8):
        optimizer.step()
        scheduler.step()
    limit.decisions.fitted = FittedSchedule(8, 1.0, 50, (20, 40), 10)
    limit.begin(8)
    rates = []
    for _ in range(42):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    base = 0.05
    assert rates[0] == pytest.approx(base * (1 / 3 * 0.2 + 0.8))
    assert rates[2] == pytest.approx(base)
    assert rates[11:13] == pytest.approx([base, base * 0.1])
    assert rates[31:33] == pytest.approx([base * 0.1, base * 0.01])


@pytest.mark.parametrize("killed_after", [3, 9])
def test_time_of_earlier_starts_counts_and_a_fit_holds(tmp_path, killed_after):
    whole = train(tmp_path / "whole", 100, Clock(per_batch=1.0), budget=40.0, fit_after=6)
    model, optimizer, scheduler, checkpointer = make_run(tmp_path / "broken")
    clock = Clock(per_batch=1.0)
    limit = TimeLimit(100, clock=clock, schedule=scheduler, budget=40.0, fit_after=6)

    def kill(iteration):
        if iteration == killed_after:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        do_train(
            model, Ticking(100, clock), optimizer, scheduler, checkpointer, "cpu", 2, {"iteration": 0},
            time_limit=limit, per_iter_end_callback_fn=lambda iteration: kill(iteration),
        )  # fmt: skip
    # What was done after the checkpoint is done again, in time that is lost.
    lost = killed_after % 2
    resumed = train(
        tmp_path / "broken", 100, clock, start=1, budget=40.0 + lost, fit_after=6, decisions=limit.decisions
    )
    assert resumed[0].decisions.fitted == whole[0].decisions.fitted
    assert_same(resumed[2], whole[2])


def test_a_run_without_time_left_ends_where_it_is(tmp_path):
    train(tmp_path, 6, Clock(per_batch=1.0), period=2)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "model_0000004.pth"))
    (tmp_path / "model_final.pth").unlink()
    limit, iteration, final = train(tmp_path, 6, Clock(per_batch=1.0, now=50.0), start=4, budget=49.0)
    assert iteration == final["iteration"] == 4
    assert limit.is_short


def test_a_first_start_trains_at_least_once(tmp_path):
    assert train(tmp_path, 50, Clock(per_batch=1.0, now=100.0), budget=10.0)[1] == 1


def test_it_ends_with_an_update(tmp_path):
    model, optimizer, scheduler, checkpointer = make_run(tmp_path)
    clock = Clock(per_batch=1.0)
    limit = TimeLimit(90, clock=clock, schedule=scheduler, budget=14.5, steps_per_update=3)
    arguments = {"iteration": 0}
    do_train(
        model, Ticking(90, clock), optimizer, scheduler, checkpointer, "cpu", 0, arguments, accumulate_steps=3,
        time_limit=limit,
    )  # fmt: skip
    assert arguments["iteration"] == 12


def test_what_is_kept_and_how_often():
    notes, clock = [], Clock(per_batch=1.0)
    limit = TimeLimit(
        1000, budget=95.0, clock=clock, keep=lambda limit: notes.append((clock.now, limit.decisions.last))
    )
    limit.begin(0)
    for iteration in range(1, 1000):
        clock.now += 1
        if limit.after(iteration, updated=True) == iteration:
            break
    assert notes == [(15, None), (30, None), (45, None), (60, None), (75, None), (90, None), (95, 95)]


def _process(rank, address, folder, queue):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    # The second process's clock says nothing; it follows the first.
    clock = Clock(per_batch=1.0 if rank == 0 else 1000.0)
    limit, iteration, _ = train_alone(folder / str(rank), clock)
    queue.put((rank, iteration, limit.decisions.fitted, limit.decisions.last))
    torch.distributed.destroy_process_group()


def train_alone(folder, clock):
    folder.mkdir()
    model, optimizer, scheduler, _ = make_run(folder)
    limit = TimeLimit(500, budget=60.0, clock=clock, fit_after=10, schedule=scheduler)
    arguments = {"iteration": 0}

    def slower(iteration):
        clock.per_batch *= 1.02
        return False

    do_train(
        model, Ticking(500, clock), optimizer, scheduler, None, "cpu", 0, arguments, time_limit=limit,
        per_iter_end_callback_fn=lambda iteration: slower(iteration),
    )  # fmt: skip
    return limit, arguments["iteration"], None


def test_two_processes_end_with_the_same_iteration(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_process, args=(r, tmp_path / "store", tmp_path, queue)) for r in range(2)]
    for child in children:
        child.start()
    results = sorted(queue.get(timeout=120) for _ in children)
    for child in children:
        child.join()
    assert results[0][1:] == results[1][1:]
    assert 10 < results[0][1] == results[0][3] < results[0][2].max_iter  # it became slower than it was fitted to
