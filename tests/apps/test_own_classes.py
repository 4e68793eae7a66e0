"""The classes of a run on data of one's own: read, fixed, compared, kept, and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from maskrcnn_benchmark.apps.own_classes import build_classes
from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import make_dataset
from tests.apps.tiny_run import CONFIG, tiny_run
from tests.data.tiny_formats import write_labelme, write_voc, write_yolo

__all__ = ["tiny_run"]  # a fixture

KEY = "MODEL.ROI_BOX_HEAD.NUM_CLASSES"


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cfg = global_cfg.clone()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "DATASETS.TRAIN", "train", "DATASETS.TEST", "test"])
    cfg.merge_from_list(["OUTPUT_DIR", str(tmp_path / "out")])
    return cfg


def use(cfg, train: dict, test: dict) -> None:
    cfg.DATASETS.CUSTOM = [{"name": "train", **train}, {"name": "test", **test}]


def boxes(*names: str) -> dict:
    return {"a": [(name, 2 + 12 * number, 4, 10, 20) for number, name in enumerate(names)]}


def test_the_model_follows_the_data(cfg, tmp_path, caplog):
    use(cfg, write_voc(tmp_path / "a", boxes("nut", "bolt")), write_voc(tmp_path / "b", boxes("bolt", "nut")))
    with caplog.at_level("INFO", logger="maskrcnn_benchmark"):
        build_classes(cfg, training=True)
    assert cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 3
    assert f"{KEY} follows the data: 3, the classes of train and the background" in caplog.text
    assert cfg.DATASETS.CLASSES == ("bolt", "nut")
    assert make_dataset(cfg, "test", is_train=False).categories == ("bolt", "nut")


def test_retinanet_has_a_key_of_its_own(cfg, tmp_path):
    use(cfg, write_voc(tmp_path / "a", boxes("nut")), write_voc(tmp_path / "b", boxes("nut")))
    cfg.MODEL.RETINANET_ON = True
    build_classes(cfg, training=True)
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 2
    assert cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 81


def test_a_test_set_that_lacks_a_class_keeps_the_labels_of_training(cfg, tmp_path):
    use(cfg, write_voc(tmp_path / "a", boxes("ant", "bee", "cat")), write_voc(tmp_path / "b", boxes("cat")))
    build_classes(cfg, training=True)
    dataset = make_dataset(cfg, "test", is_train=False)
    assert dataset.categories == ("ant", "bee", "cat")
    assert dataset.load_targets(0).labels.tolist() == [3]
    (row,) = dataset.coco.anns.values()
    assert dataset.coco.cats[row["category_id"]]["name"] == "cat"


def test_a_test_set_with_a_class_more_is_refused(cfg, tmp_path):
    use(cfg, write_voc(tmp_path / "a", boxes("ant")), write_voc(tmp_path / "b", boxes("ant", "wasp")))
    build_classes(cfg, training=True)
    with pytest.raises(ValueError, match=r"b/xml/a.xml: class 'wasp' is not among the 1 classes ant"):
        make_dataset(cfg, "test", is_train=False)


def test_lists_that_differ_are_named(cfg, tmp_path):
    train, test = write_yolo(tmp_path / "a"), write_yolo(tmp_path / "b")
    path = tmp_path / "b" / "data.yaml"
    use(cfg, train, test)
    for names, message in (
        (["nut", "bolt"], r"test has other classes than the run: their order differs"),
        (["bolt", "screw"], r"it lacks nut and it also has screw \(DATASETS.CLASSES: bolt, nut; test: bolt, screw\)"),
    ):
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "names": names}))
        cfg.DATASETS.CLASSES = ()
        build_classes(cfg, training=True)
        with pytest.raises(ValueError, match=message):
            make_dataset(cfg, "test", is_train=False)


def test_classes_of_the_config_go_before_those_of_the_data(cfg, tmp_path):
    use(cfg, write_labelme(tmp_path / "a"), write_labelme(tmp_path / "b"))
    cfg.merge_from_list(["DATASETS.CLASSES", "(nut, screw, bolt)", "MODEL.MASK_ON", True])
    build_classes(cfg, training=True)
    dataset = make_dataset(cfg, "train", is_train=True)
    assert dataset.categories == ("nut", "screw", "bolt")
    assert dataset.load_targets(0).labels.tolist() == [1, 3]


def test_a_number_that_was_set_is_checked_against_the_data(cfg, tmp_path):
    use(cfg, write_voc(tmp_path / "a"), write_voc(tmp_path / "b"))
    cfg.merge_from_list([KEY, 81])  # the default's value, but somebody wrote it
    with pytest.raises(ValueError, match=rf"{KEY} is 81, as the overrides says, .*set {KEY} 3, or leave it out"):
        build_classes(cfg, training=True)
    cfg.merge_from_list([KEY, 3])
    build_classes(cfg, training=True)


def test_a_number_of_a_base_is_nobody_s_wish(cfg, tmp_path):
    use(cfg, write_voc(tmp_path / "a"), write_voc(tmp_path / "b"))
    custom = cfg.DATASETS.CUSTOM
    (tmp_path / "mine.yaml").write_text(f"_BASE_: {CONFIG}\nMODEL: {{MASK_ON: False}}\nOUTPUT_DIR: ''\n")
    cfg.merge_from_file(tmp_path / "mine.yaml")
    assert cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 5
    assert cfg.source_of(KEY) is None
    assert cfg.source_of("MODEL.MASK_ON") == f"config file {tmp_path / 'mine.yaml'}"
    cfg.DATASETS.CUSTOM = custom
    cfg.merge_from_list(["DATASETS.TRAIN", "train", "DATASETS.TEST", "test"])
    build_classes(cfg, training=True)
    assert cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 3
    cfg.merge_from_file(CONFIG)
    cfg.merge_from_list(["DATASETS.TRAIN", "train", "DATASETS.TEST", "test", "MODEL.MASK_ON", False])
    cfg.DATASETS.CLASSES, cfg.DATASETS.CUSTOM = (), custom
    with pytest.raises(ValueError, match=rf"{KEY} is 5, as config file .*shapes.yaml says"):
        build_classes(cfg, training=True)


def test_published_names_change_nothing(cfg):
    cfg.merge_from_list(["DATASETS.TRAIN", "coco_2017_train", "DATASETS.TEST", "coco_2017_val"])
    build_classes(cfg, training=True)
    assert (cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES, cfg.DATASETS.CLASSES) == (81, ())


def test_a_model_is_tested_where_its_training_data_are_not(cfg, tmp_path):
    test = write_voc(tmp_path / "b", boxes("cat"))
    use(cfg, {"img_dir": "/nowhere", "xml_dir": "/nowhere"}, test)
    with pytest.raises(FileNotFoundError, match=r"train: no images at"):
        build_classes(cfg, training=True)
    build_classes(cfg, training=False)
    assert cfg.DATASETS.CLASSES == ("cat",)
    # The run in OUTPUT_DIR knows better.
    Path(cfg.OUTPUT_DIR).mkdir()
    names = [{"id": number, "name": name} for number, name in enumerate(("ant", "cat"), start=1)]
    Path(cfg.OUTPUT_DIR, "categories.json").write_text(json.dumps(names))
    Path(cfg.OUTPUT_DIR, "last_checkpoint").write_text("model_final.pth")
    cfg.DATASETS.CLASSES = ()
    build_classes(cfg, training=False)
    assert cfg.DATASETS.CLASSES == ("ant", "cat")
    assert make_dataset(cfg, "test", is_train=False).load_targets(0).labels.tolist() == [2]


def test_a_run_on_background_whose_checkpoint_keeps_the_names_without_its_folder(tiny_run, tmp_path):
    """Three of four images show nothing, so that one of two batches of two shows nothing at all."""
    objects = [("bolt", 4, 6, 20, 16), ("nut", 30, 10, 24, 30)]
    entry = write_labelme(tmp_path / "own", {"a": [], "b": [], "c": [], "d": objects})
    custom = [{"name": "tiny", "keep_background": True, **entry}]
    keys = {KEY: None, "DATASETS.CUSTOM": str(custom), "SOLVER.MAX_ITER": 2}
    base = tmp_path / "own.yaml"
    base.write_text(f"_BASE_: {CONFIG}\n")
    tiny_run.train("--skip-test", config=base, keys=keys)
    alone = tmp_path / "alone"
    alone.mkdir()
    (tiny_run.output / "model_final.pth").rename(alone / "mine.pth")
    predictor = Predictor.from_checkpoint(alone / "mine.pth", device="cpu")
    assert [category.name for category in predictor.categories] == ["bolt", "nut"]
