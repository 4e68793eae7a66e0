"""What a restart of tools/train_net.py makes up for, what it leaves alone, and who may start one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal

import pytest
import torch

from maskrcnn_benchmark.apps import tester as tester_module
from maskrcnn_benchmark.checkpoint.lock import LOCK_FILE
from maskrcnn_benchmark.engine.signals import EXIT_STATUS
from maskrcnn_benchmark.engine.step import TrainStep
from tests.apps.tiny_run import tiny_run
from tests.forked import holding

__all__ = ["tiny_run"]  # a fixture


def evaluations(output):
    lines = (output / "evaluations.jsonl").read_text().splitlines()
    return {line["iteration"]: line["figures"] for line in map(json.loads, lines)}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def tested(monkeypatch):
    """The iterations' worth of weights that were evaluated, as digests; ``tested.fail_at`` breaks off one of them."""

    class Tested(list):
        fail_at = 0

    done = Tested()
    run_tests = tester_module.run_tests

    def watch(cfg, model, *args, **options):
        done.append(next(model.parameters()).detach().sum().item())
        if len(done) == done.fail_at:
            raise RuntimeError("broken off")
        return run_tests(cfg, model, *args, **options)

    monkeypatch.setattr(tester_module, "run_tests", watch)
    return done


def test_an_evaluation_is_neither_lost_nor_repeated(tiny_run, tested):
    """Broken off after iteration 2, whose checkpoint was written; the second time after that of iteration 4."""
    keys = {"SOLVER.MAX_ITER": 5, "SOLVER.TEST_PERIOD": 2}
    tiny_run.train(keys=keys)
    whole, weights = evaluations(tiny_run.output), list(tested)
    assert list(whole) == [2, 4]
    assert len(weights) == 3
    keys["OUTPUT_DIR"] = output = tiny_run.folder / "part"
    tested.clear()
    tested.fail_at = 1
    with pytest.raises(RuntimeError, match="broken off"):
        tiny_run.train(keys=keys)
    tested.fail_at = 4
    with pytest.raises(RuntimeError, match="broken off"):
        tiny_run.train(keys=keys)  # evaluates after 2, 4 and, unsuccessfully, 5
    tiny_run.train(keys=keys)
    assert tested == [weights[0], *weights, weights[2]]
    assert evaluations(output) == whole
    assert digest(output / "model_final.pth") != digest(tiny_run.output / "model_final.pth")  # OUTPUT_DIR is in it
    assert (output / "trace.jsonl").read_bytes() == (tiny_run.output / "trace.jsonl").read_bytes()


def test_an_evaluation_that_had_ended_is_taken_as_it_was(tiny_run, tested, capsys):
    keys = {"SOLVER.MAX_ITER": 5, "SOLVER.TEST_PERIOD": 2}
    tiny_run.train(keys=keys)
    (tiny_run.output / "model_final.pth").unlink()
    (tiny_run.output / "last_checkpoint").write_text(str(tiny_run.output / "model_0000004.pth"))
    tested.clear()
    capsys.readouterr()
    tiny_run.train(keys=keys)
    assert len(tested) == 1  # at the end
    assert "The figures after iteration 4 are known from before the interruption" in capsys.readouterr().out


def test_an_aim_that_was_reached_stays_reached(tiny_run, tested):
    """Killed between the evaluation and the last checkpoint, then started once more when all was done."""
    keys = {"PER_EPOCH_EVAL": True, "MIN_BBOX_MAP": 0.0, "MIN_MASK_MAP": 0.0}
    tiny_run.train(keys=keys)
    final = tiny_run.output / "model_final.pth"
    expected, rows = digest(final), (tiny_run.output / "metrics.jsonl").read_text().splitlines()
    assert torch.load(final, weights_only=True)["iteration"] == 2
    final.unlink()
    (tiny_run.output / "last_checkpoint").write_text(str(tiny_run.output / "model_0000002.pth"))
    for _ in range(2):
        tiny_run.train(keys=keys)
        assert digest(final) == expected
        again = (tiny_run.output / "metrics.jsonl").read_text().splitlines()
        assert again[:-1] == rows[:-1]
        assert json.loads(again[-1])["BBOX_mAP"] == json.loads(rows[-1])["BBOX_mAP"]
    assert len(tested) == 1
    tiny_run.train("--skip-test", keys=keys | {"MIN_BBOX_MAP": 1.1})
    assert torch.load(final, weights_only=True)["iteration"] == 4


def test_the_final_file_is_made_up_for(tiny_run):
    """Killed between the checkpoint of the last iteration and the final one."""
    tiny_run.train("--skip-test")
    final, last = tiny_run.output / "model_final.pth", tiny_run.output / "model_0000004.pth"
    expected = digest(final)
    for damage in (final.unlink, lambda: final.write_bytes(b"damaged")):
        damage()
        tag = last if not final.exists() else final
        (tiny_run.output / "last_checkpoint").write_text(str(tag))
        tiny_run.train("--skip-test")
        assert digest(final) == expected
    modified = final.stat().st_mtime_ns
    tiny_run.train("--skip-test")
    assert final.stat().st_mtime_ns == modified


def test_a_final_file_that_cannot_be_written_is_an_error(tiny_run, monkeypatch, capsys):
    from maskrcnn_benchmark.checkpoint import checkpointer

    save = checkpointer.save_atomically

    def fill_up(data, path):
        if not path.endswith("0000002.pth"):
            raise OSError(28, "No space left on device")
        save(data, path)

    monkeypatch.setattr(checkpointer, "save_atomically", fill_up)
    with pytest.raises(SystemExit) as end:
        tiny_run.train("--skip-test")
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert "model_0000004.pth cannot be written" in captured.out.replace("Checkpoint model_0000004", "model_0000004")
    assert "No space left on device" in captured.err
    assert (tiny_run.output / "last_checkpoint").read_text().endswith("model_0000002.pth")


def test_a_second_run_in_the_folder_is_refused(tiny_run, capsys):
    """Its files stay as they are."""
    tiny_run.train("--skip-test", "--max_steps", "1")

    def files():  # but the lock, and the log, to which the first run of this process still writes
        kept = [path for path in tiny_run.output.iterdir() if path.is_file()]
        return {path.name: path.read_bytes() for path in kept if path.name not in (LOCK_FILE, "log.txt")}

    before = files()
    with holding(tiny_run.output) as holder, pytest.raises(SystemExit) as end:
        tiny_run.train("--skip-test")
    assert end.value.code == 2
    assert re.fullmatch(
        rf"error: another run writes to .* \(process {holder.pid} on .*\); end it, or .*\n", capsys.readouterr().err
    )
    assert files() == before


def test_leftovers_are_gone_after_a_start(tiny_run):
    tiny_run.output.mkdir()
    leftover = tiny_run.output / ".model_0000002.pth.0123abcd.tmp"
    leftover.write_bytes(b"half")
    tiny_run.train("--skip-test", "--max_steps", "1")
    assert not leftover.exists()


def test_told_to_stop_the_tool_saves_and_ends_with_the_status(tiny_run, monkeypatch, capsys):
    tiny_run.train("--skip-test")
    expected = torch.load(tiny_run.output / "model_final.pth", weights_only=True)
    output = tiny_run.folder / "stopped"
    step = TrainStep.__call__

    def told(self, *args, iteration):
        if iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, iteration=iteration)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", told)
        with pytest.raises(SystemExit) as end:
            tiny_run.train(keys={"OUTPUT_DIR": output})
    assert end.value.code == EXIT_STATUS
    newest = output / "model_0000003.pth"
    assert f"Told to stop by SIGTERM; the same command goes on from {newest}" in capsys.readouterr().out
    assert not (output / "inference").exists()
    tiny_run.train("--skip-test", keys={"OUTPUT_DIR": output})
    resumed = torch.load(output / "model_final.pth", weights_only=True)
    assert all(torch.equal(resumed["model"][name], value) for name, value in expected["model"].items())
    assert resumed["meters"] == expected["meters"]
