"""A network and a data set so small that a whole run takes seconds; train and test called as the tools call them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.apps import test as test_app
from maskrcnn_benchmark.apps import train as train_app
from maskrcnn_benchmark.config import cfg
from tests.data.tiny_coco import CATEGORIES, write_tiny_coco

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "demo" / "mask_rcnn_R_18_FPN_shapes.yaml"
DATA_KEYS = {"DATASETS.TRAIN": "('tiny',)", "DATASETS.TEST": "('tiny',)"}
OPTIONS = {
    "MODEL.DEVICE": "cpu",
    "REPORT": False,
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": len(CATEGORIES) + 1,
    "MODEL.BACKBONE.OUT_CHANNELS": 16,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.FPN.USE_GN": False,
    "MODEL.ROI_BOX_HEAD.USE_GN": False,
    "MODEL.ROI_MASK_HEAD.USE_GN": False,
    "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": 32,
    "MODEL.ROI_MASK_HEAD.CONV_LAYERS": "(16,)",
    "INPUT.MIN_SIZE_TRAIN": 64,
    "INPUT.MAX_SIZE_TRAIN": 96,
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.MAX_SIZE_TEST": 96,
    "DATALOADER.NUM_WORKERS": 0,
    "NHWC": False,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.BASE_LR": 0.005,
    "SOLVER.WARMUP_ITERS": 2,
    "SOLVER.STEPS": "(3,)",
    "SOLVER.MAX_ITER": 4,
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "SOLVER.LOG_PERIOD": 1,
    "TEST.IMS_PER_BATCH": 2,
}


class TinyRun:
    """One data set and one output folder; calls of the tools on them.

    Args:
        folder: where both lie.
    """

    def __init__(self, folder):
        self.folder = folder
        self.output = folder / "out"
        self.data = write_tiny_coco(folder / "data")

    def command(self, *flags, config=CONFIG, keys=None):
        """The words after the program's name; ``keys`` replaces config values, None takes a key away."""
        custom = {"DATASETS.CUSTOM": str(self.data.custom("tiny")), "OUTPUT_DIR": self.output}
        keys = {**OPTIONS, **DATA_KEYS, **custom, **(keys or {})}
        summary = ["--json-summary", str(self.folder / "dllogger.out")]
        pairs = [str(word) for pair in keys.items() if pair[1] is not None for word in pair]
        return ["--config-file", str(config), *summary, *flags, *pairs]

    def train(self, *flags, **keywords):
        """tools/train_net.py in this process."""
        train_app.main(train_app.make_parser().parse_args(self.command(*flags, **keywords)), cfg)

    def test(self, *flags, **keywords):
        """tools/test_net.py in this process."""
        test_app.main(test_app.make_parser().parse_args(self.command(*flags, **keywords)), cfg)

    def copy_until(self, iteration, name):
        """A copy of the output folder as it was when the checkpoint of an iteration had just been written."""
        target = self.folder / name
        target.mkdir()
        checkpoint = target / f"model_{iteration:07d}.pth"
        shutil.copy(self.output / checkpoint.name, checkpoint)
        (target / "last_checkpoint").write_text(str(checkpoint))
        return target


@pytest.fixture
def tiny_run(tmp_path, monkeypatch):
    """A fresh TinyRun; the program's log handlers go when the test ends."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Two threads that meet after every tiny operation lose far more than they gain where the cores are shared.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TinyRun(tmp_path)
    torch.set_num_threads(num_threads)
    logger = logging.getLogger("maskrcnn_benchmark")
    for handler in logger.handlers[:]:
        if getattr(handler, "made_by_setup_logger", False):
            logger.removeHandler(handler)
            handler.close()
    logger.propagate = True
