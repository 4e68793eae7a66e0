"""benchmarks/train_speed.py on a tiny network on the CPU, and torchvision's network beside it where it is installed."""

from __future__ import annotations

import json

import pytest

from benchmarks.train_speed import main
from tests.apps.tiny_run import CONFIG, OPTIONS

TINY = [str(word) for pair in OPTIONS.items() for word in pair]
SHORT = ("--device", "cpu", "--rounds", "2", "--steps", "1", "--warmup", "1", "--stages", "1", "--dtypes", "float32")


pytestmark = pytest.mark.usefixtures("one_thread")


def measure(out, *flags, opts=TINY):
    size = ("--image-size", "64", "96")
    return main([*SHORT, "--no-torchvision", "--config-file", str(CONFIG), *size, "--out", str(out), *flags, *opts])


def test_several_commands_fill_one_table(tmp_path, capsys):
    out = tmp_path / "new" / "speed.json"
    flags = ("--batch-sizes", "1,2", "--variants", "nchw,nhwc", "--positives", "5", "--peak-tflops", "1")
    first = measure(out, *flags, "--part", "1/2")
    assert [row["name"] for row in first] == ["batch 1 float32 nchw", "batch 2 float32 nchw"]
    second = measure(out, *flags, "--only", "batch 2 .* n")
    assert [row["name"] for row in second] == ["batch 2 float32 nchw", "batch 2 float32 nhwc"]
    rows = json.loads(out.read_text())["rows"]
    assert sorted(row["name"] for row in rows) == [
        "batch 1 float32 nchw", "batch 2 float32 nchw", "batch 2 float32 nhwc"
    ]  # fmt: skip
    for row in rows:
        ours = row["ours"]
        assert len(ours["images_per_second_of_rounds"]) == 2
        assert min(ours["images_per_second_of_rounds"]) <= ours["images_per_second"]
        assert ours["positives_per_image"] >= 5
        assert row["mfu"] == pytest.approx(ours["images_per_second"] * row["tflop_per_image"])
        assert {"backbone", "backward", "optimizer"} <= set(ours["stages_ms"])
    assert "img/s" in capsys.readouterr().out


def test_no_row_is_begun_after_the_limit(tmp_path, capsys):
    flags = ("--batch-sizes", "1", "--variants", "nchw,nhwc", "--no-flops", "--time-limit", "0")
    assert len(measure(tmp_path / "out.json", *flags)) == 1
    assert "1 rows are left, from 'batch 1 float32 nhwc' on" in capsys.readouterr().out


def test_rows_for_the_suite(tmp_path):
    flags = ("--batch-sizes", "1", "--variants", "nchw,nhwc", "--no-flops", "--time-limit", "0")
    measure(tmp_path / "out.json", *flags, "--rows", str(tmp_path / "rows.json"))
    assert not (tmp_path / "out.json").exists()
    document = json.loads((tmp_path / "rows.json").read_text())
    assert document["left_out"] == ["batch 1 float32 nhwc"]
    (row,) = document["rows"]
    assert (row["area"], row["unit"], row["better"], row["device"]) == ("train_speed", "images/s", "higher", "cpu")
    assert len(row["results"]["ours"]["samples"]) == 2
    assert row["case"].startswith("batch 1 float32 nchw, 64x96")


def test_a_wrong_part_is_named(tmp_path):
    with pytest.raises(ValueError, match="--part is 3/2"):
        measure(tmp_path / "out.json", "--part", "3/2")


@pytest.mark.extras
def test_torchvision_has_the_same_network_and_the_same_positives(tmp_path):
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision: {error}")
    assert torchvision.__version__
    from benchmarks._torchvision import TorchvisionDetector
    from maskrcnn_benchmark.config import cfg
    from maskrcnn_benchmark.modeling.detector import build_detection_model

    flags = ("--image-size", "96", "128", "--batch-sizes", "1", "--variants", "nchw", "--positives", "40", "--no-flops")
    (row,) = main([*SHORT, *flags, "--out", str(tmp_path / "out.json")])
    for name in ("ours", "torchvision"):
        assert row[name]["positives_per_image"] == pytest.approx(40, abs=8)
        assert {"backbone", "fpn", "rpn_head", "proposals", "rpn_loss", "mask_head"} <= set(row[name]["stages_ms"])
    config = cfg.clone()
    config.merge_from_file("configs/e2e_mask_rcnn_R_50_FPN_1x.yaml")
    ours, theirs = build_detection_model(config), TorchvisionDetector(81, positives=0)
    count = lambda model: sum(p.numel() for p in model.parameters() if p.requires_grad)  # noqa: E731
    assert count(ours) == count(theirs)
