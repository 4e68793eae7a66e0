"""When a run is saved, and what has to be done before."""

from __future__ import annotations

import os

import torch

from maskrcnn_benchmark.engine.trainer import do_train
from tests.engine.stand_ins import TinyLoader, make_run


def train(folder, length, **options):
    model, optimizer, scheduler, checkpointer = make_run(folder)
    arguments = {"iteration": 0, **checkpointer.load()}
    loader = TinyLoader(length, start_iter=arguments["iteration"])
    do_train(model, loader, optimizer, scheduler, checkpointer, torch.device("cpu"), 2, arguments, **options)


def names_in(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".pth"))


def test_what_belongs_to_earlier_iterations_is_done_before_a_save(tmp_path):
    seen = []
    train(tmp_path, 5, before_save=lambda: seen.append(names_in(tmp_path)))
    first, second = "model_0000002.pth", "model_0000004.pth"
    assert seen == [[], [first], [first, second]]


def test_files_are_the_same_written_beside_the_training(tmp_path):
    for name, in_background in (("a", False), ("b", True)):
        train(tmp_path / name, 7, save_in_background=in_background)
    assert names_in(tmp_path / "a") == names_in(tmp_path / "b")
    for name in names_in(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_run_whose_last_write_was_lost_makes_up_for_it(tmp_path):
    train(tmp_path, 4)
    final = tmp_path / "model_final.pth"
    expected = final.read_bytes()
    final.unlink()
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "model_0000004.pth"))
    train(tmp_path, 4)
    assert final.read_bytes() == expected
    assert (tmp_path / "last_checkpoint").read_text() == str(final)


def test_a_period_that_cannot_be_written_is_left_out(tmp_path, monkeypatch):
    """The next one is, and the run equals one that never failed."""
    from maskrcnn_benchmark.checkpoint import checkpointer

    train(tmp_path / "whole", 7)
    save = checkpointer.save_atomically

    def fail_once(data, path):
        if path.endswith("0000004.pth"):
            raise OSError(28, "No space left on device")
        save(data, path)

    monkeypatch.setattr(checkpointer, "save_atomically", fail_once)
    train(tmp_path / "part", 7, save_in_background=True)
    assert names_in(tmp_path / "part") == ["model_0000002.pth", "model_0000006.pth", "model_final.pth"]
    assert (tmp_path / "part/model_final.pth").read_bytes() == (tmp_path / "whole/model_final.pth").read_bytes()
