"""Training and testing on Pascal VOC's and Cityscapes' own formats, as the tools are called."""

from __future__ import annotations

import json

import pytest

from tests.apps.tiny_run import tiny_run
from tests.data.tiny_cityscapes import write_tiny_cityscapes
from tests.data.tiny_voc import write_tiny_voc

__all__ = ["tiny_run"]  # a fixture
SHORT = {"SOLVER.MAX_ITER": 2, "SOLVER.CHECKPOINT_PERIOD": 2, "MODEL.ROI_HEADS.SCORE_THRESH": 0.0}
SHORT |= {"DATASETS.CUSTOM": "[]"}


@pytest.mark.parametrize(
    ("write", "name", "num_classes", "masks", "figures"),
    [
        (write_tiny_voc, "voc_2007", 21, False, {"voc_results.json": ("bbox", "AP_area")}),
        (write_tiny_cityscapes, "cityscapes_mask_instance", 9, True, {"cityscapes_results.json": ("segm", "AP50")}),
    ],
    ids=["voc", "cityscapes"],
)
def test_train_and_test(tiny_run, write, name, num_classes, masks, figures):
    test_split = "test" if name == "voc_2007" else "val"
    write(tiny_run.folder / ("VOC2007" if name == "voc_2007" else "cityscapes"), ("train", test_split))
    keys = {
        **SHORT,
        "DATASETS.DATA_DIR": tiny_run.folder,
        "DATASETS.TRAIN": f"('{name}_train',)",
        "DATASETS.TEST": f"('{name}_{test_split}',)",
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": num_classes,
        "MODEL.MASK_ON": masks,
    }
    tiny_run.train("--skip-test", keys=keys)
    tiny_run.test(keys=keys)
    folder = tiny_run.output / "inference" / f"{name}_{test_split}"
    for file, (task, figure) in figures.items():
        assert 0 <= json.loads((folder / file).read_text())[task][figure] <= 1
    log = (tiny_run.output / "log.txt").read_text()
    assert (folder / "result.txt").read_text().splitlines()[0] in log, "the figures are in the log as well"
    assert len(json.loads((folder / "bbox.json").read_text())) > 0
    assert (folder / "segm.json").exists() == masks
    assert (folder / "predictions.pth").exists()
