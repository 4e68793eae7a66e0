"""The stand-in for YMIR: what it makes is what the protocol shows, and what breaks the protocol does not pass it."""

from __future__ import annotations

import copy
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.ymir.platform import annotations, backend, consumer, monitor, runner, storage
from tests.ymir.platform.photos import Photo, Thing, draw
from tests.ymir.platform.producer import FIRST, SECOND, Job, Order, produce

NAMES = ["forklift", "pallet"]
# The objects of the protocol's own examples.
EXAMPLE = Photo(b"example", ".jpg", 64, 48, tuple(
    Thing(name, np.pad(np.ones((h, w), bool), ((y, 48 - y - h), (x, 64 - x - w))))
    for name, (x, y, w, h) in [("forklift", (10, 5, 20, 12)), ("pallet", (40, 20, 9, 9))]
))  # fmt: skip


def test_nothing_of_the_executor_is_imported():
    for path in Path(runner.__file__).parent.glob("*.py"):
        assert not re.search(r"^\s*(import|from) maskrcnn_benchmark", path.read_text(), flags=re.MULTILINE), path


def test_ark_is_the_published_example():
    assert annotations.ark(EXAMPLE, NAMES, old=False) == ("0, 10, 5, 29, 16, -1.0, 0.0\n1, 40, 20, 48, 28, 0.75, 0.0\n")
    assert annotations.ark(EXAMPLE, NAMES, old=True) == "0,10,5,29,16\n1,40,20,48,28,-1.0\n"


def test_voc_and_coco_are_as_published():
    tree = ElementTree.fromstring(annotations.voc(EXAMPLE, NAMES, "/in/assets/a7/5ca7"))
    assert [int(tree.find("object/bndbox/" + key).text) for key in ("xmin", "ymin", "xmax", "ymax")] == [10, 5, 29, 16]
    assert tree.findtext("object/truncated") == "unknown"
    content = json.loads(annotations.coco([EXAMPLE], ["5ca7.jpg"], NAMES))
    assert [(each["id"], each["name"]) for each in content["categories"]] == [(1, "pallet"), (0, "forklift")]
    assert content["annotations"][0]["bbox"] == [10, 5, 20, 12]
    assert isinstance(content["annotations"][1]["segmentation"]["counts"], str)


def test_the_folders_of_a_task(tmp_path):
    photos = draw(8)
    job = produce(tmp_path / "job", Order(["training"], train=photos[:6], val=photos[6:], settings={"max_iter": "4"}))
    assert re.fullmatch(r"t\w{29}", job.task_id)
    index = (job.source / "train-index.tsv").read_text()
    assert not index.endswith("\n")
    rows = [line.split("\t") for line in index.splitlines() if line]
    assert len(rows) == 6
    assert all(Path(path).is_file() for row in rows for path in row)
    assert {Path(row[0]).suffix for row in rows} == {"", ".jpg"}
    assert all(Path(row[0]).parent.name == Path(row[0]).stem[-2:] for row in rows)
    config = yaml.safe_load((job.source / "config.yaml").read_text())
    assert "pretrained_model_params" not in config
    assert config["gpu_id"] == ""
    assert "protocol_version" not in yaml.safe_load(
        (produce(tmp_path / "old", Order(["infer"], FIRST, candidates=photos)).source / "env.yaml").read_text()
    )


@pytest.mark.parametrize("text", [
    "", "t1\t1700000456.25\t0.37\t2", "t1 1700000456.25 0.37 2\n", "t1\t1700000456.25\t0.37\n", "t1\t1\t0.37\t2\n",
    "t1\t1700000456.25\t37\t2\n", "t1\t1700000456.25\t1.01\t2\n", "t1\t1700000456.25\t0.37\t5\n",
    "t1\t1700000456.25\t0.37\t4\tOSError\n", "t1\t1700000456.25\t1.00\t4\t1\n" + "line\n" * 100,
])  # fmt: skip
def test_what_is_no_record(text):
    with pytest.raises(ValueError, match=r"monitor|task|percentage|state|stack"):
        monitor.parse(text)


def test_records_and_their_order():
    first = monitor.parse("t1\t1700000456.250000\t0.37\t2\t0\n")
    error = monitor.parse("t1\t1700000999.000000\t1.00\t4\t300103\nRuntimeError: out of memory\n")
    assert (first.percent, first.code) == (0.37, 0)
    assert (error.code, error.stack) == (300103, ("RuntimeError: out of memory",))
    monitor.check_sequence([first, error], "t1")
    for wrong in ([error, first], [], [first, error, error]):
        with pytest.raises(AssertionError):
            monitor.check_sequence(wrong, "t1")


def result_with_stages(models):
    stage = {"stage_name": "iter_2", "files": ["a.pth", "config.yaml"], "timestamp": 1700001200, "maskAP": 0.22}
    for place in (models / "iter_2" / "a.pth", models / "config.yaml"):
        annotations.write(place, "x")
    return {"best_stage_name": "iter_2", "maskAP": 0.22, "model_stages": {"iter_2": stage}}


@pytest.mark.parametrize(("key", "value"), [
    ("files", ["b.pth"]), ("files", []), ("files", ["iter_2/a.pth"]), ("timestamp", 1.5), ("stage_name", "iter_3"),
    ("maskAP", 1.5), ("maskAP", "0.2"), ("tp", -1), ("fp", 1.0),
])  # fmt: skip
def test_faults_of_a_stage(tmp_path, key, value):
    result = result_with_stages(tmp_path)
    consumer.check_stages(copy.deepcopy(result), tmp_path, "maskAP")
    result["model_stages"]["iter_2"][key] = value
    with pytest.raises(AssertionError):
        consumer.check_stages(result, tmp_path, "maskAP")


def test_faults_of_a_result(tmp_path):
    for change in (
        {"best_stage_name": "iter_3"}, {"model_stages": {}}, {"maskAP": 0.3}, {"attachments": {"figures": ["a.png"]}},
    ):  # fmt: skip
        with pytest.raises((AssertionError, KeyError)):
            consumer.check_stages(result_with_stages(tmp_path) | change, tmp_path, "maskAP")
    for wrong in ({"map": 0.3, "model": ["none.pth"]}, {"map": 1, "model": ["config.yaml"]}):
        with pytest.raises(AssertionError):
            consumer.check_flat(wrong, tmp_path)


def published_segmentation():
    return {
        "images": [{"id": 1, "file_name": "5ca7.jpg", "width": 12, "height": 10}],
        "categories": [{"id": 1, "name": "forklift"}, {"id": 2, "name": "pallet"}],
        "annotations": [{
            "id": 1, "image_id": 1, "category_id": 2, "iscrowd": 0, "bbox": [3.0, 2.0, 6.0, 4.0], "area": 24,
            "segmentation": {"size": [10, 12], "counts": "P146000000000l0"}, "confidence": 0.91,
        }],
    }  # fmt: skip


def test_the_published_mask_is_read():
    kept = consumer.consume_segmentation(published_segmentation())["5ca7.jpg"]
    assert (kept[0]["box"], kept[0]["class_name"], kept[0]["score"]) == ((3, 2, 6, 4), "pallet", 0.91)
    wanted = np.zeros((10, 12), bool)
    wanted[2:6, 3:9] = True
    assert np.array_equal(kept[0]["mask"], wanted)


def test_what_the_platform_does_with_other_masks():
    content = published_segmentation()
    first = content["annotations"][0]
    content["annotations"] += [dict(first, id=2), dict(first, id=3, bbox=[3.0, 2.0, 0.9, 4.0])]
    assert len(consumer.consume_segmentation(content)["5ca7.jpg"]) == 1
    first["segmentation"] = [[0, 0, 4, 0, 4, 4], [5, 5, 8, 5, 8, 8]]
    with pytest.raises(NotImplementedError):
        consumer.consume_segmentation(content)
    del first["area"]
    with pytest.raises(KeyError):
        consumer.consume_segmentation(content)


@pytest.fixture
def finished(tmp_path) -> Job:
    photos = draw(2)
    job = produce(tmp_path / "job", Order(["mining", "infer"], SECOND, candidates=photos))
    paths = job.candidate_paths()
    annotations.write(job.target / "result.tsv", "".join(f"{path}\t{-index}\n" for index, path in enumerate(paths)))
    box = {"box": {"x": 1, "y": 2, "w": 3, "h": 4}, "class_name": "pallet", "score": 0.5}
    found = {Path(paths[0]).name: {"boxes": [box]}, Path(paths[1]).name: {"boxes": []}}
    annotations.write(job.target / "infer-result.json", json.dumps({"detection": found}))
    return job


def test_faults_of_mining(finished):
    path = finished.target / "result.tsv"
    rows = consumer.read_mining_result(finished)
    assert consumer.top(rows, 1) == [finished.order.candidates[0].digest]
    lines = path.read_text().splitlines(keepends=True)
    for wrong in (lines[::-1], lines[:1], lines * 2, [lines[0].replace("/assets/", "/"), lines[1]]):
        path.write_text("".join(wrong))
        with pytest.raises(AssertionError):
            consumer.read_mining_result(finished)


def test_faults_of_detections(finished):
    path = finished.target / "infer-result.json"
    found = consumer.read_infer_result(finished)
    assert [len(each) for each in found.values()] == [1, 0]
    text = path.read_text()
    for old, new in (('"boxes"', '"annotations"'), ("pallet", "crate"), ("0.5", "1.5"), ('"x": 1', '"x": 1.0'),
                     ('"w": 3', '"w": 0'), ('"x": 1', '"x": 900')):  # fmt: skip
        path.write_text(text.replace(old, new))
        with pytest.raises(AssertionError):
            consumer.read_infer_result(finished)
    path.write_text(json.dumps({"detection": {}}))
    with pytest.raises(AssertionError):
        consumer.read_infer_result(finished)


def test_cleaning_keeps_what_is_named(finished):
    for name in ("log.txt", "tensorboard/events", "tensorboard/link", "models/a.pth", "made.json"):
        annotations.write(finished.target / name, "x")
    backend.clean_up(finished)
    left = {path.relative_to(finished.folder).as_posix() for path in finished.folder.rglob("*") if path.is_file()}
    assert left == {"in/config.yaml", "out/log.txt", "out/monitor.txt", "out/tensorboard/events",
                    "out/tensorboard/link", "out/infer-result.json", "out/result.tsv"}  # fmt: skip


def test_a_model_goes_through_the_store(tmp_path):
    models = tmp_path / "models"
    model = storage.save_result(models, result_with_stages(models), tmp_path / "store", NAMES, 4)
    assert model.unpack(tmp_path / "new", has_stages=True) == ["iter_2/a.pth", "iter_2/config.yaml"]
    assert model.unpack(tmp_path / "flat", has_stages=False) == ["a.pth", "config.yaml"]
    assert (tmp_path / "flat" / "a.pth").read_text() == "x"


def test_the_user_may_write_in_out_alone(tmp_path):
    """A program that tries what an executor must not: where the machine allows it, each attempt fails."""
    if not runner.can_be_a_stranger():
        pytest.skip("mounting and changing the user need root, unshare and setpriv")
    platform = backend.Platform(tmp_path)
    job = platform.prepare(Order(["infer"], candidates=draw(2)))
    program = (
        "import os, pwd, sys, time\n"
        "from pathlib import Path\n"
        "job = Path(sys.argv[1])\n"
        "for place in (job / 'in', Path.home(), Path.cwd(), job):\n"
        "    try:\n"
        "        (place / 'mine').write_text('x')\n"
        "    except OSError:\n"
        "        continue\n"
        "    raise SystemExit(f'{place} was written')\n"
        "try:\n"
        "    raise SystemExit(f'I am {pwd.getpwuid(os.getuid())}')\n"
        "except KeyError:\n"
        "    pass\n"
        "next((job / 'in' / 'assets').rglob('*.jpg')).read_bytes()\n"
        "draft = job / 'out' / 'draft'\n"
        f"draft.write_text(f'{job.task_id}\\t{{time.time()}}\\t1.00\\t2\\t0\\n')\n"
        "draft.rename(job / 'out' / 'monitor.txt')\n"
    )
    run = runner.run(job, command=[sys.executable, "-c", program, str(job.folder)])
    assert run.status == 0, run.log
    assert run.last.percent == 1
