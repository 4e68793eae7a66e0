"""Being told to stop: the state is saved, the program says so by its status, and the resumed run is the same run."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from maskrcnn_benchmark.engine.signals import EXIT_STATUS, Interrupted, StopSignals
from maskrcnn_benchmark.engine.trainer import do_train
from tests.engine.stand_ins import RecordingSink, TinyLoader, make_run
from tests.engine.test_two_processes import start
from tests.forked import exit_code

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)


def train(folder, length, *, stop=None, period=1000, **options):
    """Train on from the folder's checkpoint; gives (model, optimizer, rows of figures)."""
    model, optimizer, scheduler, checkpointer = make_run(folder, noise=0.5)
    arguments = {"iteration": 0, **checkpointer.load()}
    loader, sink = TinyLoader(length, start_iter=arguments["iteration"]), RecordingSink()
    do_train(model, loader, optimizer, scheduler, checkpointer, CPU, period, arguments, sink=sink, stop=stop, **options)
    return model, optimizer, sink.rows


def state(model, optimizer):
    return [*model.parameters(), *(optimizer.state[parameter]["momentum_buffer"] for parameter in model.parameters())]


def assert_same_end(left, right):
    assert all(torch.equal(a, b) for a, b in zip(state(*left[:2]), state(*right[:2]), strict=True))

    def series(rows):
        return {step: {name: part for name, part in text.items() if "loss" in name} for step, _, text in rows}

    whole, resumed = series(left[2]), series(right[2])
    assert resumed == {step: whole[step] for step in resumed}
    assert resumed


def tell(number, at):
    """A callback that signals this process after an iteration."""

    def callback(iteration):
        if iteration == at:
            os.kill(os.getpid(), number)
        return False

    return callback


def numbered(folder):
    return sorted(int(path.stem[6:]) for path in folder.glob("model_0*.pth"))


class SignalledLoader(TinyLoader):
    """Signals this process while the batch of an iteration is being made, which is within the training loop."""

    def __init__(self, *args, number, at, **options):
        super().__init__(*args, **options)
        self.number, self.at = number, at

    def __iter__(self):
        for iteration, batch in enumerate(super().__iter__(), self.start_iter + 1):
            if iteration == self.at:
                os.kill(os.getpid(), self.number)
            yield batch


def train_until_told(folder, length, *, number, at, **options):
    model, optimizer, scheduler, checkpointer = make_run(folder, noise=0.5)
    arguments = {"iteration": 0}
    loader = SignalledLoader(length, number=number, at=at)
    with StopSignals() as stop, pytest.raises(Interrupted) as told, stop.deferred():
        do_train(model, loader, optimizer, scheduler, checkpointer, CPU, 1000, arguments, stop=stop, **options)
    return told.value.name


@BOTH
@pytest.mark.parametrize("in_background", [False, True])
def test_the_iteration_is_finished_and_saved_and_the_resumed_run_is_the_same(tmp_path, number, in_background):
    whole = train(tmp_path / "whole", 12, log_period=5)
    folder = tmp_path / "part"
    name = train_until_told(folder, 12, number=number, at=7, log_period=5, save_in_background=in_background)
    assert name == number.name
    assert numbered(folder) == [7]
    assert torch.load(folder / "model_0000007.pth", weights_only=True)["iteration"] == 7
    assert_same_end(whole, train(folder, 12, log_period=5))


def test_with_micro_batches_the_update_is_finished(tmp_path):
    options = {"accumulate_steps": 4, "log_period": 5}
    whole = train(tmp_path / "whole", 12, **options)
    train_until_told(tmp_path / "part", 12, number=signal.SIGTERM, at=5, **options)
    assert numbered(tmp_path / "part") == [8]
    assert_same_end(whole, train(tmp_path / "part", 12, **options))


def test_told_in_the_last_iteration_the_run_is_complete_all_the_same(tmp_path):
    train_until_told(tmp_path, 6, number=signal.SIGTERM, at=6)
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 6
    assert numbered(tmp_path) == []


def test_an_evaluation_is_broken_off_and_done_again(tmp_path):
    """The losses of iterations that no line has told of are in the checkpoint too."""
    evaluated = []

    def evaluate(iteration):
        if iteration % 3 == 0:
            evaluated.append(iteration)
            if evaluated == [3, "done", 6]:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            evaluated.append("done")
        return False

    options = {"log_period": 5, "evaluates_after": lambda iteration: iteration % 3 == 0}
    whole = train(tmp_path / "whole", 12, **options)
    begin = time.monotonic()
    with StopSignals() as stop, pytest.raises(Interrupted), stop.deferred():
        train(tmp_path / "part", 12, stop=stop, per_iter_end_callback_fn=evaluate, **options)
    assert time.monotonic() - begin < 50
    assert evaluated == [3, "done", 6]
    assert numbered(tmp_path / "part") == [6]
    assert_same_end(whole, train(tmp_path / "part", 12, per_iter_end_callback_fn=evaluate, **options))
    assert evaluated == [3, "done", 6, 6, "done", 9, "done", 12, "done"]


def test_told_within_a_callback_that_is_no_evaluation_the_losses_not_read_are_not_lost(tmp_path):
    """Without all of the state, nothing is written, and the checkpoint before it stays the newest."""
    with StopSignals() as stop, pytest.raises(Interrupted), stop.deferred():
        train(tmp_path, 12, stop=stop, period=4, log_period=5, per_iter_end_callback_fn=tell(signal.SIGTERM, 6))
    assert numbered(tmp_path) == [4]


def tell_and_sleep(number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def test_outside_of_training_it_ends_at_once_with_the_status():
    with pytest.raises(SystemExit) as end, StopSignals() as stop, stop.exits():
        tell_and_sleep(signal.SIGTERM)
    assert end.value.code == EXIT_STATUS == 75


def test_noted_before_it_counts_as_soon_as_it_may():
    with StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.agreed()
        with pytest.raises(Interrupted), stop.at_once():
            pytest.fail("not reached")
        stop.name = ""  # enough of it


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


@pytest.mark.parametrize(("pause", "status"), [(0.0, -signal.SIGUSR1), (60.0, 3)])
def test_a_second_signal_ends_the_process_unless_it_repeats_the_first(pause, status):
    def be_told_twice():
        with StopSignals(pause_s=pause) as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(3)

    assert exit_code(be_told_twice) == status


@pytest.mark.timeout(600)
def test_processes_agree_on_the_iteration(tmp_path, repository):
    """One of two is told while it waits for its fourth batch; the other hears of it one iteration later."""
    start("stopped_processes", 2, tmp_path, repository)
    outcomes = [torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in range(2)]
    for name, iteration in (("plain", 5), ("accumulated", 8), ("norm", 8)):
        finals = [(tmp_path / folder / "model_final.pth").read_bytes() for folder in (name, f"{name}_whole")]
        assert finals[0] == finals[1]
        assert [outcome[name]["first"]["stopped"] for outcome in outcomes] == [(iteration, ""), (iteration, "SIGTERM")]
        assert numbered(tmp_path / name) == [iteration]
        for outcome in outcomes:
            whole, second = outcome[name]["whole"], outcome[name]["second"]
            assert torch.equal(whole["weights"], second["weights"])
            assert second["losses"] == whole["losses"][-len(second["losses"]) :]
            assert len(second["losses"]) == 2
