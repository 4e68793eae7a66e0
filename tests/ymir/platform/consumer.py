"""Reads what a task left in /out, strictly: a rule of the protocol that is broken is an AssertionError that says so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pycocotools import mask as rle

from tests.ymir.platform.producer import Job

METRICS = {2: "mAP", 4: "maskAP"}
MAX_STAGES = 11
_STAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_training_result(job: Job) -> dict[str, Any]:
    """result.yaml, whose files are all there."""
    path = job.target / "models" / "result.yaml"
    assert path.is_file(), "result.yaml is missing (160011)"
    result = yaml.safe_load(path.read_text(encoding="utf-8"))
    if job.order.generation.has_stages:
        check_stages(result, path.parent, METRICS[job.order.object_type or 2])
    else:
        check_flat(result, path.parent)
    return result


def check_stages(result: dict[str, Any], models: Path, metric: str) -> None:
    """The form with stages."""
    stages = result["model_stages"]
    assert 0 < len(stages) <= MAX_STAGES, f"{len(stages)} stages"
    for name, stage in stages.items():
        assert _STAGE.fullmatch(name), f"a stage is called {name!r}"
        assert stage["stage_name"] == name
        assert type(stage["timestamp"]) is int, f"{name}: the timestamp is {stage['timestamp']!r}"
        assert stage["files"], f"{name} has no files"
        for file in stage["files"]:
            assert file == Path(file).name, f"{name}: {file!r} is no base name"
            places = [models / name / file, models / file]
            found = next((place for place in places if place.exists()), None)
            assert found is not None, f"{name}: {file} is neither in its folder nor in models"
            assert not found.is_symlink(), f"{found} is a link"
        for key in {metric, "mAP", "maskAP", "boxAP", "mAR"} & stage.keys():
            check_share(f"{name}.{key}", stage[key])
        assert metric in stage, f"{name} lacks {metric}"
        for key in {"tp", "fp", "fn"} & stage.keys():
            assert type(stage[key]) is int, f"{name}.{key} is {stage[key]!r}"
            assert stage[key] >= 0
    best = result["best_stage_name"]
    assert best in stages, f"the best stage {best!r} is none of {list(stages)}"
    assert stages[best][metric] == max(stage[metric] for stage in stages.values()), "the best stage is not the best"
    if metric in result:
        assert result[metric] == stages[best][metric]
    for section, files in result.get("attachments", {}).items():
        for file in files:
            assert (models / "attachments" / section / file).is_file(), f"the attachment {section}/{file} is missing"


def check_flat(result: dict[str, Any], models: Path) -> None:
    """The form of YMIR 1.1: two keys, and files directly below models."""
    check_share("map", result["map"])
    assert result["model"], "no model is listed"
    for file in result["model"]:
        assert file == Path(file).name, f"{file!r} is no base name"
        assert (models / file).is_file(), f"{file} is not in models"


def check_share(name: str, value: object) -> None:
    """A plain Python float between 0 and 1."""
    assert type(value) is float, f"{name} is {value!r}"
    assert 0 <= value <= 1, f"{name} is {value!r}"


def read_mining_result(job: Job) -> list[tuple[str, float]]:
    """result.tsv: every candidate once, under the path it came with, the highest score first."""
    text = (job.target / "result.tsv").read_text(encoding="utf-8")
    assert text.endswith("\n") or not text
    rows = []
    for line in text.splitlines():
        path, score = line.split("\t")
        rows.append((path, float(score)))
    scores = [score for _, score in rows]
    assert all(score == score for score in scores), "a score is no number"
    assert scores == sorted(scores, reverse=True), "scores are not descending"
    assert sorted(path for path, _ in rows) == sorted(job.candidate_paths()), "not every candidate once"
    return rows


def top(rows: list[tuple[str, float]], number: int) -> list[str]:
    """What the platform takes over: the first lines, by base name without its ending."""
    return [Path(path).stem for path, _ in rows[:number]]


def read_infer_result(job: Job) -> dict[str, list[dict[str, Any]]]:
    """infer-result.json in the form of the task: by base name a list of class_name, score, box, and mask or None."""
    content = json.loads((job.target / "infer-result.json").read_text(encoding="utf-8"))
    names = {Path(path).name: photo for path, photo in zip(job.candidate_paths(), job.order.candidates, strict=True)}
    sizes = {name: (photo.height, photo.width) for name, photo in names.items()}
    if job.order.object_type == 4:
        return _read_segmentation(content, sizes, list(job.order.class_names))
    key = "boxes" if job.order.generation.has_stages else "annotations"
    return _read_detection(content, sizes, list(job.order.class_names), key)


def _read_detection(content: dict, sizes: dict, class_names: list[str], key: str) -> dict[str, list[dict]]:
    assert set(content) == {"detection"}
    assert set(content["detection"]) == set(sizes), "the images are not those of the candidates"
    found = {}
    for name, entry in content["detection"].items():
        assert set(entry) == {key}, f"{name} has {sorted(entry)} instead of {key}"
        for each in entry[key]:
            assert each["class_name"] in class_names
            check_share("score", each["score"])
            assert set(each["box"]) == set("xywh")
            assert all(type(side) is int for side in each["box"].values()), f"{each['box']} are not all integers"
            _check_inside([each["box"][side] for side in "xywh"], sizes[name])
        found[name] = [
            {"class_name": each["class_name"], "score": each["score"],
             "box": tuple(each["box"][side] for side in "xywh"), "mask": None}
            for each in entry[key]
        ]  # fmt: skip
    return found


def _read_segmentation(content: dict, sizes: dict, class_names: list[str]) -> dict[str, list[dict]]:
    categories = {each["id"]: each["name"] for each in content["categories"]}
    assert set(categories.values()) <= set(class_names), f"{categories} are not {class_names}"
    images = {each["id"]: each for each in content["images"]}
    assert len(images) == len(content["images"]), "two images have one id"
    assert sorted(each["file_name"] for each in images.values()) == sorted(sizes), "not the images of the candidates"
    for each in images.values():
        assert (each["height"], each["width"]) == sizes[each["file_name"]]
    ids = [each["id"] for each in content["annotations"]]
    assert len(ids) == len(set(ids)), "two annotations have one id"
    kept = consume_segmentation(content)
    dropped = len(content["annotations"]) - sum(map(len, kept.values()))
    assert dropped == 0, f"the platform drops {dropped} annotations"
    for name, entries in kept.items():
        for each in entries:
            check_share("confidence", each["score"])
            assert each["mask"].shape == sizes[name]
            _check_inside(each["box"], sizes[name])
    return {name: kept.get(name, []) for name in sizes}


def _check_inside(box: list[int] | tuple[int, ...], size: tuple[int, int]) -> None:
    x, y, w, h = box
    height, width = size
    assert min(x, y) >= 0, f"{box} begins outside"
    assert min(w, h) >= 1, f"{box} is empty"
    assert x + w <= width, f"{box} ends outside {size}"
    assert y + h <= height, f"{box} ends outside {size}"


def consume_segmentation(content: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What YMIR makes of COCO results: coordinates cut off, empty boxes and repetitions dropped.

    Raises:
        KeyError: a field is missing that it needs.
        NotImplementedError: a polygon has more than one part.
    """
    names = {each["id"]: each["file_name"] for each in content["images"]}
    classes = {each["id"]: each["name"] for each in content["categories"]}
    kept: dict[str, list[dict[str, Any]]] = {}
    seen = set()
    for each in content["annotations"]:
        image, shape = names[each["image_id"]], each["segmentation"]
        box = tuple(int(side) for side in each["bbox"])
        assert len(box) == 4
        int(each["area"])
        if isinstance(shape, list) and len(shape) > 1:
            raise NotImplementedError(f"{image}: a polygon of {len(shape)} parts")
        if min(box[2:]) < 1 or (image, each["category_id"], box) in seen:
            continue
        seen.add((image, each["category_id"], box))
        mask = None
        if isinstance(shape, dict) and shape:
            assert isinstance(shape["counts"], str), "the counts of a mask are no text"
            mask = rle.decode({"size": shape["size"], "counts": shape["counts"].encode("ascii")}).astype(bool)
        kept.setdefault(image, []).append(
            {"class_name": classes[each["category_id"]], "score": each["confidence"], "box": box, "mask": mask}
        )
    return kept


def check_tensorboard(job: Job) -> dict[str, list[float]]:
    """Event files with scalars; returns them by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = job.target / "tensorboard"
    holding = sorted({path.parent for path in folder.rglob("events.out.tfevents.*")})
    assert holding, "there are no event files in tensorboard"
    scalars: dict[str, list[float]] = {}
    for place in holding:
        events = EventAccumulator(str(place))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            scalars.setdefault(tag, []).extend(event.value for event in events.Scalars(tag))
    assert scalars, "the event files hold no scalars"
    return scalars
