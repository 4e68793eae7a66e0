"""The folder that is never renamed, the time of prediction, several views: the programs' functions, called here."""

from __future__ import annotations

import json
import logging
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.apps import start
from maskrcnn_benchmark.apps.competition import predict as predict_app
from maskrcnn_benchmark.apps.competition import train as train_app
from maskrcnn_benchmark.apps.competition.deadline import Deadline, TimedLoader
from maskrcnn_benchmark.apps.competition.kernels import build_kernels
from maskrcnn_benchmark.apps.options.competition import make_predict_parser, make_train_parser
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.utils.digest import digest_tensors
from tests.competition.data_tree import write_config, write_tree


class Workplace:
    """A repository of nothing but its runs, data of its own, and the two programs.

    Args:
        folder: where all of this lies.
        monkeypatch: sets the environment.
    """

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.root = folder / "code"
        self.root.mkdir()
        self.data = folder / "DATA"
        self.train_json, self.information = write_tree(self.data, num_train=60, num_test=24)
        self.configure()
        monkeypatch.setenv("DATA_ROOT", str(self.data))

    def configure(self, **changes):
        """Another config."""
        settings = {"SOLVER__MAX_ITER": 6, "SOLVER__STEPS": [4], "SOLVER__CHECKPOINT_PERIOD": 2, **changes}
        self.monkeypatch.setenv("CONFIG", str(write_config(self.folder / "config.yaml", **settings)))

    def train(self, *words):
        train_app.main(make_train_parser(self.root).parse_args(words), cfg)

    def predict(self, *words):
        predict_app.main(make_predict_parser(self.root).parse_args(words), cfg)

    @property
    def trained(self):
        return self.root / "runs/train/official"

    @property
    def predicted(self):
        return self.root / "runs/val/official"

    def rows(self, name="best_preds.json"):
        return json.loads((self.predicted / name).read_bytes())

    def record(self):
        return json.loads((self.predicted / "prediction.json").read_text())

    def kill_after(self, iteration):
        """Leave the training folder as a kill after that checkpoint does."""
        for path in self.trained.glob("model_*.pth"):
            if path.name > f"model_{iteration:07d}.pth":
                path.unlink()
        (self.trained / "last_checkpoint").write_text(str(self.trained / f"model_{iteration:07d}.pth"))
        manifest = json.loads((self.trained / "manifest.json").read_text())
        (self.trained / "manifest.json").write_text(json.dumps({**manifest, "end": None}))

    def weights(self):
        return digest_tensors(torch.load(self.trained / "model_final.pth", weights_only=True)["model"])


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DATA_DIR", "")  # what the programs set goes away again
    num_threads = torch.get_num_threads()
    yield Workplace(tmp_path, monkeypatch)
    torch.set_num_threads(num_threads)
    logger = logging.getLogger("maskrcnn_benchmark")
    for handler in [each for each in logger.handlers if getattr(each, "made_by_setup_logger", False)]:
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True


def refused(capsys, action, *words):
    with pytest.raises(SystemExit) as error:
        action(*words)
    assert error.value.code == 2
    return capsys.readouterr().err


def test_the_output_folder_refuses_resumes_or_is_left_alone(place, capsys):
    place.train()
    whole = place.weights()
    place.train()
    assert "came to its end" in capsys.readouterr().out

    place.kill_after(4)
    place.configure(SOLVER__BASE_LR=0.02)
    message = refused(capsys, place.train)
    assert "SOLVER.BASE_LR (0.01 there, 0.02 now)" in message
    assert "--resume" in message
    assert not (place.trained / "model_final.pth").exists()

    place.configure(SOLVER__LOG_PERIOD=1)  # of no weight
    place.train()
    assert "Resuming at iteration 4" in (place.trained / "log.txt").read_text()
    assert place.weights() == whole

    place.configure(SOLVER__MAX_ITER=8)
    place.train("--resume")
    assert torch.load(place.trained / "model_final.pth", weights_only=True)["iteration"] == 8
    assert [path.name for path in (place.root / "runs/train").iterdir()] == ["official"]


def test_a_run_killed_under_a_budget_keeps_it(place, monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(start, "start_run_clock", lambda: lambda: clock["now"])
    settings = {"SOLVER__MAX_TIME": 1.0, "SOLVER__MAX_TIME_FIT_AFTER": 0, "SOLVER__MAX_ITER": 6}
    place.configure(**settings)
    clock["now"] = 600.0
    place.train("--skip-test")
    kept = json.loads((place.trained / "time_budget.json").read_text())
    assert (kept["used_seconds"], kept["finished"], kept["last"]) == (600.0, True, None)

    place.kill_after(4)
    (place.trained / "time_budget.json").write_text(json.dumps({**kept, "finished": False}))
    clock["now"] = 500.0
    place.train("--skip-test")
    assert json.loads((place.trained / "time_budget.json").read_text())["used_seconds"] == 1100.0

    place.kill_after(4)  # with nothing left of the hour the run ends where it is, with a model
    clock["now"] = 2600.0
    place.train("--skip-test")
    assert torch.load(place.trained / "model_final.pth", weights_only=True)["iteration"] == 4
    assert json.loads((place.trained / "manifest.json").read_text())["end"]["reason"] == "time used up"
    assert json.loads((place.trained / "time_budget.json").read_text())["last"] == 4


def test_without_time_to_evaluate_there_is_a_model_all_the_same(place, monkeypatch):
    seconds = iter([0.0])
    monkeypatch.setattr(start, "start_run_clock", lambda: lambda: next(seconds, 3599.999))
    place.configure(SOLVER__MAX_TIME=1.0)
    place.train()
    log = (place.trained / "log.txt").read_text()
    assert (place.trained / "model_final.pth").is_file()
    assert "Training ends after iteration 1 of 6: the time is used up" in log
    assert "is not evaluated: the time is used up" in log


def test_decisions_that_cannot_be_repeated_are_told_of(place, capsys, tmp_path):
    assert "does not exist; a run with SOLVER.MAX_TIME writes it" in refused(capsys, place.train, "--repeat", "nowhere")
    file = tmp_path / "time.json"
    file.write_text("{}")
    assert "is damaged" in refused(capsys, place.train, "--repeat", str(file))
    whole = {"format": 1, "max_hours": 1, "used_seconds": 1, "finished": True, "fitted": None, "last": 900}
    file.write_text(json.dumps(whole))
    assert "is of a run of 900 iterations, but SOLVER.MAX_ITER is 6" in refused(
        capsys, place.train, "--repeat", str(file)
    )
    file.write_text(json.dumps({**whole, "format": 2}))
    assert "has layout 2" in refused(capsys, place.train, "--repeat", str(file))


def test_prediction_needs_a_trained_model_and_the_information(place, capsys):
    assert "run train.py first" in refused(capsys, place.predict)
    place.train("--skip-test")
    (place.data / "Test_Images_Information.json").unlink()
    assert "it gives the images their ids" in refused(capsys, place.predict)
    place.monkeypatch.setenv("DATA_ROOT", str(place.folder / "nowhere"))
    assert "DATA_ROOT" in refused(capsys, place.predict)


def test_awkward_test_images_and_the_older_layout(place):
    place.train("--skip-test")
    place.predict()
    whole = place.rows()
    ids = {row["file_name"]: row["id"] for row in place.information["images"]}
    by_id = {}
    for row in whole:
        by_id.setdefault(row["image_id"], []).append(row)
    assert set(by_id) <= set(ids.values())

    images = place.data / "test/images"
    gone, broken, renamed, *_ = sorted(ids)
    (images / gone).unlink()
    (images / broken).write_bytes(b"no picture")
    korean = "서울_주차장.png"
    (images / renamed).rename(images / unicodedata.normalize("NFD", korean))
    (images / "nobody.png").write_bytes((images / sorted(ids)[5]).read_bytes())
    rows = [{**row, "file_name": korean if row["file_name"] == renamed else row["file_name"]}
            for row in place.information["images"]]  # fmt: skip
    (place.data / "Test_Images_Information.json").unlink()
    (place.data / "test/Test_Images_Information.json").write_text(json.dumps({"images": rows}, ensure_ascii=False))
    (place.data / "sample_submission.json").write_text(json.dumps([{"score": 1, "bbox": [], "image_id": 1}]))
    place.predict()
    assert place.record()["missing"] == [gone]
    found = {}
    for row in place.rows():
        assert tuple(row) == ("score", "bbox", "image_id")
        found.setdefault(row["image_id"], []).append(row["bbox"])
    expected = {image_id: [row["bbox"] for row in rows] for image_id, rows in by_id.items()}
    assert found == {key: value for key, value in expected.items() if key not in (ids[gone], ids[broken])}
    log = (place.predicted / "log.txt").read_text()
    assert "nobody.png" in log
    assert gone in log


def slow_clock(monkeypatch, seconds):
    """A clock for the program by which each image takes so long, in whatever pass; gives the time in a list."""
    now, convert = [0.0], predict_app.image_detections

    def converted(*args):
        now[0] += seconds
        return convert(*args)

    monkeypatch.setattr(predict_app, "image_detections", converted)
    monkeypatch.setattr(predict_app, "_BETWEEN_WRITES", 1e9)
    monkeypatch.setattr(start, "start_run_clock", lambda: lambda: now[0])
    return now


def test_near_the_limit_what_is_done_is_written(place, monkeypatch):
    place.configure(TEST__IMS_PER_BATCH=2, TEST__MAX_TIME=1.0)
    place.train("--skip-test")
    place.predict()
    whole = place.rows()
    now = slow_clock(monkeypatch, 200.0)
    place.predict("--max-bytes", "3000")
    record = place.record()
    assert record["finished"] == 16  # nine batches of two would end at 3600 s, with nothing left to write
    assert len(record["missing"]) == 24 - record["finished"]
    assert now[0] == 3200
    done = sorted(row["id"] for row in place.information["images"])[: record["finished"]]
    assert place.rows() == [row for row in whole if row["image_id"] in done]
    assert (place.predicted / "best_preds_cut.json").stat().st_size == record["cut_bytes"] <= 3000
    assert "there was no time for them" in (place.predicted / "log.txt").read_text()


def test_several_views_come_after_a_whole_submission_and_are_repeated(place, monkeypatch):
    views = {"TEST__BBOX_AUG__ENABLED": True, "TEST__BBOX_AUG__H_FLIP": True, "TEST__IMS_PER_BATCH": 4}
    place.configure(**views, SOLVER__MAX_ITER=4, TEST__MAX_TIME=1.0)
    place.train("--skip-test")
    place.predict("--refine", "0")
    plain = place.rows()
    writes = []
    write = predict_app.write_submission
    monkeypatch.setattr(
        predict_app, "write_submission", lambda *args, **options: (writes.append(1), write(*args, **options))[1]
    )
    slow_clock(monkeypatch, 100.0)
    place.predict()
    record, refined = place.record(), place.rows()
    assert (record["finished"], len(writes)) == (24, 2)
    assert record["refined"] == 8  # 2400 s for the first pass, then 400 s a batch
    order = sorted(row["id"] for row in place.information["images"])
    later = set(order[record["refined"] :])
    assert [row for row in refined if row["image_id"] in later] == [row for row in plain if row["image_id"] in later]
    assert refined != plain
    place.configure(**views)  # no limit
    place.predict("--refine", str(record["refined"]))
    assert place.rows() == refined


@pytest.mark.parametrize("per_batch", [1.0, 7.0])
def test_the_deadline_is_met_within_one_percent(per_batch):
    now = [100.0]
    deadline = Deadline(3600.0, lambda: now[0])
    deadline.timed(lambda: now.__setitem__(0, now[0] + 3.0))

    class Loader:
        dataset = None

        def __len__(self):
            return 10**6

        def __iter__(self):
            while True:
                yield None

    for _ in TimedLoader(Loader(), deadline):
        now[0] += per_batch
    deadline.timed(lambda: now.__setitem__(0, now[0] + 3.0))
    assert 0.99 * 3600 <= now[0] <= 3600


def test_kernels_are_compiled_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "maskrcnn_benchmark").mkdir()
    (tmp_path / "setup.py").write_text(
        "import sys, pathlib\npathlib.Path('called').write_text(' '.join(sys.argv[1:]))\n"
    )
    called = tmp_path / "called"
    monkeypatch.setenv("SKIP_SETUP", "1")
    build_kernels(tmp_path)
    assert not called.exists()
    monkeypatch.delenv("SKIP_SETUP")
    monkeypatch.setenv("WORLD_SIZE", "2")
    build_kernels(tmp_path)
    assert not called.exists()
    monkeypatch.delenv("WORLD_SIZE")
    build_kernels(tmp_path)
    assert called.read_text() == "build_ext --inplace"
    (tmp_path / "setup.py").write_text("raise SystemExit('there is no compiler')\n")
    build_kernels(tmp_path)
    assert "there is no compiler" in capsys.readouterr().err
    (tmp_path / "maskrcnn_benchmark/_C.abi3.so").touch()
    called.unlink()
    build_kernels(tmp_path)
    assert not called.exists()


def test_paths_hold_from_any_folder(place, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    place.train("--skip-test", "SOLVER.MAX_ITER", "1")
    place.predict()
    assert (place.trained / "dllogger.out").exists() is False  # the config asks for metrics.jsonl alone
    assert (place.predicted / "best_preds.json").is_file()
    place.train("--skip-test", "SOLVER.MAX_ITER", "1", "OUTPUT_DIR", "mine")
    assert (elsewhere / "mine/model_final.pth").is_file()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["mine"]
    shutil.rmtree(Path(place.trained))
