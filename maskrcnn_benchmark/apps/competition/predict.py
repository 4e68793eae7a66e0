"""What predict.py does: detect on the test images and write the submission, whole or as far as the time goes."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import orjson
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.augmentation import make_box_augmentation
from maskrcnn_benchmark.apps.categories import FILE_NAME, load_categories
from maskrcnn_benchmark.apps.competition.deadline import Deadline, TimedLoader
from maskrcnn_benchmark.apps.competition.places import make_data_folder, make_train_folder, use_data_root
from maskrcnn_benchmark.apps.competition.submission import CUT, WHOLE, Boxes, Written, write_submission
from maskrcnn_benchmark.apps.competition.test_images import TestImages, same_name, submission_keys
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.start import Run, build_config, start_run
from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.checkpoint.history import FINAL, newest_checkpoint
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.broken_images import report_broken_images
from maskrcnn_benchmark.data.build import make_device_normalize
from maskrcnn_benchmark.data.datasets.loose_coco import shortened
from maskrcnn_benchmark.engine.inference import compute_on_dataset
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Preparation
from maskrcnn_benchmark.evaluation.columns import Detections
from maskrcnn_benchmark.evaluation.results import image_detections
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.files import write_atomically

logger = logging.getLogger("maskrcnn_benchmark.inference")

DATASET = "parking_2022_test"
RECORD = "prediction.json"
_BETWEEN_WRITES = 300.0  # seconds after which what is there is written, so that a kill costs no more


@user_errors()
def main(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Run the program.

    Args:
        args: parsed options of ``make_predict_parser``.
        cfg: the config tree with its defaults; stays as it is.
    """
    use_data_root()
    weights = make_train_folder(args, cfg)
    newest = newest_checkpoint(weights)
    if not newest:
        raise FileNotFoundError(f"there is no trained model in {weights}; run train.py first")
    merged = build_config(args, cfg)
    data = make_data_folder(merged)
    listed = TestImages.read(data)
    args.opts += make_options(merged, args, data, listed)
    with start_run(args, cfg, training=False, testing=True) as run:
        if Path(newest).name != f"{FINAL}.pth":
            logger.warning("Training has not come to its end: %s is taken", newest)
        prediction = Prediction(
            run,
            listed,
            Path(args.output),
            max_bytes=args.max_bytes,
            keys=submission_keys(data),
            weights=weights,
            deadline=make_deadline(run.cfg, run.clock),
        )
        prediction.run_all(*make_passes(run.cfg), args.refine)
    comm.destroy_process_group()


def make_options(cfg: CfgNode, args: argparse.Namespace, data: Path, listed: TestImages) -> list[str]:
    """The config of a prediction: the test images, a folder of its own, and images that cannot be read show nothing.

    Args:
        cfg: of the run; reads DATASETS.CUSTOM.
        args: reads the output folder.
        data: folder of the data.
        listed: the images.
    """
    options = ["OUTPUT_DIR", args.output, "DATASETS.TEST", repr((DATASET,)), "TRACKING.BACKENDS", "()"]
    options += ["DATALOADER.BROKEN_IMAGES", "skip", "DATALOADER.ASPECT_RATIO_GROUPING", "False"]
    if listed.path.parent != data:  # the older layout
        entry = {"name": DATASET, "factory": "LooseCOCODataset", "root": str(data / "test" / "images")}
        classes = [category.name for category in load_categories(make_train_folder(args, cfg))]
        entry |= {"ann_file": str(listed.path), "classes": classes}
        options += ["DATASETS.CUSTOM", repr([*cfg.DATASETS.CUSTOM, entry])]
    return options


class Prediction:
    """Detects, and writes what it has.

    Args:
        run: the started program.
        listed: the images of the competition.
        folder: of the submission.
        max_bytes: of the part that fits.
        keys: of a submission's objects.
        weights: output folder of training.
        deadline: ends it.
    """

    def __init__(
        self,
        run: Run,
        listed: TestImages,
        folder: Path,
        *,
        max_bytes: int,
        keys: Sequence[str],
        weights: str,
        deadline: Deadline,
    ) -> None:
        self.run = run
        self.listed = listed
        self.folder = folder
        self.max_bytes = max_bytes
        self.keys = keys
        self.weights = weights
        self.deadline = deadline
        self.places = listed.places()
        self.found: dict[int, Detections] = {}  # by place
        self.refined = 0  # images of this process that were seen in several views
        self.seconds = 0.0  # of the first pass
        self._written_at = run.clock()

    def run_all(self, plain: CfgNode, refining: CfgNode | None, refine: int) -> None:
        """Detect once on every image, then once more in several views, and write.

        Args:
            plain: the config of the first pass.
            refining: that of the second one; None: there is none.
            refine: images of each process that the second one sees at most; -1: all.
        """
        precision = Precision.from_config(plain, self.run.device, use_amp=self.run.use_amp)
        model = make_model(plain, self.weights)
        precision.place_model(model, self.run.device)
        begin = self.run.clock()
        self._detect(plain, model, precision, lambda: True)
        self.seconds = self.run.clock() - begin
        if refining is not None and refine:
            self._write_alone()
            self._detect(refining, model, precision, lambda: refine < 0 or self.refined < refine)
        for part in comm.all_gather(self.found):
            self.found.update(part)
        if comm.is_main_process():
            self._report(self._write())

    def _detect(self, cfg: CfgNode, model: nn.Module, precision: Precision, wants_more: Callable[[], bool]) -> None:
        """Detect on the images, in the order of their ids, as far as there is time."""
        device, normalize = self.run.device, make_device_normalize(cfg, self.run.device)
        keep_pixels = normalize is not None
        prepare = Preparation(precision, device, normalize).images
        views = make_box_augmentation(cfg, model, prepare, keep_pixels=keep_pixels)
        distributed = comm.get_world_size() > 1
        (loader,) = make_data_loader(cfg, is_train=False, is_distributed=distributed, keep_pixels=keep_pixels)
        dataset = loader.dataset
        if ids := category_ids(self.weights):
            dataset.contiguous_category_id_to_json_id = ids

        def receive(batch: tuple[Sequence[int], list[BoxList]]) -> None:
            for index, prediction in zip(*batch, strict=True):
                place = self.places[same_name(dataset.get_img_info(index)["file_name"])]
                self.found[place] = image_detections(index, prediction, dataset, "bbox")
            self.refined += len(batch[0]) if views is not None else 0
            if self.run.clock() - self._written_at > max(_BETWEEN_WRITES, 20 * self.deadline.write_seconds):
                self._write_alone()

        with contextlib.closing(loader):
            timed = TimedLoader(loader, self.deadline, wants_more)
            options = {"precision": precision, "normalize": normalize, "detect": views}
            compute_on_dataset(model, timed, device, **options, receive=receive)
        report_broken_images(dataset)

    def _write_alone(self) -> None:
        """Write what is there, unless other processes have the rest."""
        if comm.get_world_size() == 1:
            self._write()

    def _write(self) -> Written:
        written = self.deadline.timed(
            lambda: write_submission(
                self.folder, Boxes.join(self.found), self.listed.ids, max_bytes=self.max_bytes, keys=self.keys
            )
        )
        self._written_at = self.run.clock()
        return written

    def _report(self, written: Written) -> None:
        """Say what was written and what is missing, in the log and in prediction.json."""
        missing = [name for place, name in enumerate(self.listed.names) if place not in self.found]
        num_images, used = len(self.listed.ids), self.run.clock()
        record = {
            "images": num_images,
            "finished": len(self.found),
            "refined": self.refined,
            "missing": missing,
            "seconds": used,
            "seconds_per_image": self.seconds / max(len(self.found), 1),
            **asdict(written),
        }
        text = orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        write_atomically(str(self.folder / RECORD), lambda file: file.write(text))
        logger.info("%d of %d images, %d of them in several views", len(self.found), num_images, self.refined)
        if missing:
            logger.warning("%d images have no detections in the submission, because they were not read or there was no "
                           "time for them: %s", len(missing), shortened(missing))  # fmt: skip
        logger.info("%d boxes, %d bytes: %s", written.boxes, written.bytes, self.folder / WHOLE)
        logger.info(
            "%d boxes of score %s and more, %d bytes of at most %d: %s",
            written.cut_boxes, written.threshold, written.cut_bytes, self.max_bytes, self.folder / CUT,
        )  # fmt: skip


def make_model(cfg: CfgNode, folder: str) -> nn.Module:
    """The network with the newest weights in an output folder.

    Raises:
        ValueError: they cannot be read, or are of another network.
    """
    torch.manual_seed(cfg.SEED)
    model = build_detection_model(cfg)
    DetectronCheckpointer(cfg, model, save_dir=folder).load()
    return model


def make_passes(cfg: CfgNode) -> tuple[CfgNode, CfgNode | None]:
    """The config without test-time augmentation, and that with it; None where TEST.BBOX_AUG is off."""
    plain = cfg.clone()
    plain.defrost()
    plain.TEST.BBOX_AUG.ENABLED = False
    return plain, cfg if cfg.TEST.BBOX_AUG.ENABLED else None


def make_deadline(cfg: CfgNode, clock: Callable[[], float]) -> Deadline:
    """The end by TEST.MAX_TIME."""
    return Deadline(cfg.TEST.MAX_TIME * 3600, clock)


def category_ids(folder: str) -> dict[int, int]:
    """Label to the id of its category, as training had them; empty where it did not say."""
    if not Path(folder, FILE_NAME).is_file():
        return {}
    return {label: category.id for label, category in enumerate(load_categories(folder), start=1)}
