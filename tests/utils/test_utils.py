"""The helpers: meters, logging, imports, allocator, registry, names of state dicts."""

from __future__ import annotations

import logging
import re
import resource
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.collect_env import collect_env_info
from maskrcnn_benchmark.utils.cv2_util import findContours
from maskrcnn_benchmark.utils.env import setup_environment
from maskrcnn_benchmark.utils.imports import import_file
from maskrcnn_benchmark.utils.logger import format_step, setup_logger
from maskrcnn_benchmark.utils.metric_logger import MetricLogger, SmoothedValue, peak_memory_mib
from maskrcnn_benchmark.utils.miscellaneous import mkdir
from maskrcnn_benchmark.utils.model_serialization import load_state_dict
from maskrcnn_benchmark.utils.registry import Registry


def test_meters():
    meters = MetricLogger(delimiter="  ")
    for i in range(10):
        meters.update(metric=float(i), tensor=torch.tensor(i))
    for meter in (meters.metric, meters.tensor):
        # by hand; of an even number of values the published median is the lower middle one
        assert (meter.count, meter.total, meter.median, meter.avg, meter.global_avg) == (10, 45, 4, 4.5, 4.5)
    assert str(meters) == "metric: 4.0000 (4.5000)  tensor: 4.0000 (4.5000)"
    with pytest.raises(AttributeError, match="not_existent"):
        _ = meters.not_existent
    with pytest.raises(TypeError, match="'word'"):
        meters.update(word="x")


def test_meters_keep_a_window():
    meter = SmoothedValue(window_size=3)
    for value in [100.0] * 1000 + [1.0, 2.0, 6.0]:
        meter.update(value)
    assert len(meter.deque) == 3
    assert (meter.median, meter.avg, meter.count) == (2.0, 3.0, 1003)


def test_meters_go_on_from_their_state():
    whole, first = MetricLogger(), MetricLogger()
    values = torch.rand(50).tolist()
    for value in values:
        whole.update(loss=value)
    for value in values[:30]:
        first.update(loss=value)
    second = MetricLogger()
    second.load_state_dict(first.state_dict())
    for value in values[30:]:
        second.update(loss=value)
    assert str(second) == str(whole)
    assert second.loss.global_avg == whole.loss.global_avg


def test_peak_memory_is_that_of_the_process():
    assert peak_memory_mib(torch.device("cpu")) == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture
def log_name():
    name = "maskrcnn_benchmark_test_logger"
    yield name
    for handler in logging.getLogger(name).handlers[:]:
        logging.getLogger(name).removeHandler(handler)
        handler.close()


def test_logger_set_up_twice_writes_once(tmp_path, capsys, log_name):
    for _ in range(2):
        setup_logger(log_name, str(tmp_path), 0)
    logging.getLogger(f"{log_name}.trainer").info("one line")
    logging.getLogger(f"{log_name}.trainer").debug("for the file")
    pattern = rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} {log_name}\.trainer INFO: one line"
    assert re.fullmatch(pattern, capsys.readouterr().out.strip())
    first, second = (tmp_path / "log.txt").read_text().splitlines()
    assert re.fullmatch(pattern, first)
    assert second.endswith("DEBUG: for the file")


def test_other_ranks_only_warn(tmp_path, capsys, log_name):
    logger = setup_logger(log_name, str(tmp_path), 1)
    logger.info("unseen")
    logger.warning("seen")
    out, err = capsys.readouterr()
    assert out == ""
    assert "seen" in err
    assert "unseen" not in err
    assert not (tmp_path / "log.txt").exists()


def test_periodic_lines_give_way_to_the_progress_bar(tmp_path, capsys, monkeypatch, log_name):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    logger = setup_logger(log_name, str(tmp_path), 0)
    logger.info("every 20 iterations", extra={"periodic": True})
    assert capsys.readouterr().out == ""
    assert "every 20 iterations" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("PARAMETER", "PARAMETER"),
        ((), ""),
        ((20,), "Training Iteration: 20 "),
        ((20, 1), "Training Iteration: 20 Training Epoch: 1 "),
        ((20, 1, 3), "Training Iteration: 20 Training Epoch: 1 Validation Iteration: 3 "),
    ],
)
def test_step_text(step, text):
    assert format_step(step) == text


def test_a_world_of_one():
    assert (comm.get_rank(), comm.get_world_size(), comm.is_main_process()) == (0, 1, True)
    data = {"a": torch.ones(2)}
    assert comm.all_gather(data) == [data]
    assert comm.broadcast(data) is data
    assert comm.reduce_dict({"a": torch.tensor(2.0)}) == {"a": torch.tensor(2.0)}
    comm.synchronize()


def test_imported_file(tmp_path):
    path = tmp_path / "some_settings.py"
    path.write_text("VALUE = 3\n")
    assert import_file("some_settings_by_path", str(path)).VALUE == 3
    assert "some_settings_by_path" not in sys.modules
    import_file("some_settings_by_path", str(path), make_importable=True)
    assert sys.modules.pop("some_settings_by_path").VALUE == 3
    with pytest.raises(FileNotFoundError):
        import_file("x", str(tmp_path / "absent.py"))
    with pytest.raises(ValueError, match=r"must end in \.py"):
        import_file("x", str(tmp_path / "some_settings.txt"))


def test_environment_file_runs_only_when_asked(tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    path = tmp_path / "env.py"
    path.write_text(f"def setup_environment():\n    open({str(marker)!r}, 'w').close()\n")
    monkeypatch.setenv("TORCH_DETECTRON_ENV_MODULE", str(path))
    code = "import maskrcnn_benchmark.utils.env, maskrcnn_benchmark.engine.trainer"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not marker.exists()
    setup_environment()
    assert marker.exists()
    path.write_text("")
    with pytest.raises(ValueError, match=r"setup_environment\(\)"):
        setup_environment()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc only")
def test_kept_pages_are_not_faulted_in_again():
    code = """
import resource, sys
from maskrcnn_benchmark.utils.allocator import keep_pages
if sys.argv[1] == "keep" and not keep_pages():
    sys.exit("no glibc")
for turn in range(8):
    if turn == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(64 << 20)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = [
        subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True)
        for mode in ("default", "keep")
    ]
    if "no glibc" in faults[1].stderr:
        pytest.skip("the C library is not glibc")
    default, kept = (int(done.stdout) for done in faults)
    assert kept < default / 10


def test_environment_report():
    report = collect_env_info()
    assert f"torch: {torch.__version__}" in report
    assert f"numpy: {np.__version__}" in report


def test_contours_are_a_pair():
    image = np.zeros((8, 8), np.uint8)
    image[2:6, 2:6] = 1
    contours, hierarchy = findContours(image, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    assert len(contours) == 1
    assert hierarchy.shape == (1, 1, 4)


def test_mkdir(tmp_path):
    mkdir(str(tmp_path / "a" / "b"))
    mkdir(str(tmp_path / "a" / "b"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        mkdir(str(tmp_path / "file" / "b"))


def test_registry():
    registry = Registry("HEADS")

    @registry.register("decorated")
    def build():
        return 1

    registry.register("called", int)
    registry["assigned"] = str
    assert registry["decorated"] is build
    assert sorted(registry) == ["assigned", "called", "decorated"]
    registry.register("called", int)
    with pytest.raises(KeyError, match="'called' is already in HEADS"):
        registry.register("called", float)
    with pytest.raises(KeyError, match="'absent' is not in HEADS; known: assigned, called, decorated"):
        registry["absent"]


def test_registry_imports_a_module_when_its_name_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "family_of_the_test.py").write_text("from tests_registry import HEADS\nHEADS.register('late', int)\n")
    registry = Registry("HEADS", {"late": "family_of_the_test", "empty": "family_of_the_test"})
    monkeypatch.setitem(sys.modules, "tests_registry", SimpleNamespace(HEADS=registry))
    monkeypatch.syspath_prepend(tmp_path)
    assert "family_of_the_test" not in sys.modules
    assert registry["late"] is int
    assert sys.modules.pop("family_of_the_test")
    with pytest.raises(KeyError, match="'absent' is not in HEADS; known: empty, late"):
        registry["absent"]
    with pytest.raises(KeyError, match="'empty' is not in HEADS"):
        registry["empty"]


def make_model():
    block = nn.Sequential()
    block.add_module("layer1", nn.Linear(2, 3))
    block.add_module("layer2", nn.Linear(3, 2))
    model = nn.Sequential()
    model.add_module("block", block)
    model.add_module("res", nn.Linear(3, 2))
    return model


def test_names_match_by_suffix_and_the_longest_wins():
    model = make_model()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {
        "module.layer1.weight": torch.full((3, 2), 1.0),
        "module.block.layer1.weight": torch.full((3, 2), 2.0),
        "module.layer2.weight": torch.full((2, 3), 3.0),
        "module.es.weight": torch.full((2, 3), 4.0),  # ends res.weight, but not at a dot
    }
    for wrapped in (False, True):
        target = make_model()
        target.load_state_dict(start)
        load_state_dict(nn.ModuleDict({"module": target}) if wrapped else target, state)
        loaded = target.state_dict()
        assert (loaded["block.layer1.weight"] == 2).all()
        assert (loaded["block.layer2.weight"] == 3).all()
        for name in ("block.layer1.bias", "res.weight", "res.bias"):
            assert torch.equal(loaded[name], start[name])


def test_another_shape_is_named():
    with pytest.raises(ValueError, match=r"res\.weight \(5, 3\) instead of \(2, 3\)"):
        load_state_dict(make_model(), {"res.weight": torch.zeros(5, 3)})
