"""From a data set's name to the opened data set, and its classes."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.catalog import resolve_dataset
from maskrcnn_benchmark.config.classes import class_count
from maskrcnn_benchmark.config.custom_data import COMMON_KEYS
from maskrcnn_benchmark.data import datasets as dataset_classes
from maskrcnn_benchmark.data.datasets.base import DetectionDataset
from maskrcnn_benchmark.data.datasets.class_names import read_class_names
from maskrcnn_benchmark.data.datasets.subset import is_validation, listed_names
from maskrcnn_benchmark.data.synthetic import ensure_shapes_dataset
from maskrcnn_benchmark.data.transforms import Compose

# Categories of Cityscapes that its benchmark evaluates; a model for these alone is trained on these alone.
_CITYSCAPES_EVALUATED = 8
_WAYS_TO_GET_DATA = (
    "To get data: download_dataset.sh fetches COCO 2017; docs/datasets.md says where to put Pascal VOC and Cityscapes; "
    "DATASETS.CUSTOM names images and annotations of your own, see docs/custom_data.md; "
    "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml needs none, it generates its own"
)


def make_opened_dataset(
    cfg: CfgNode, name: str, *, is_train: bool, transforms: Compose | None = None
) -> DetectionDataset:
    """The data set ``name`` of the catalogue, whatever the model.

    Args:
        cfg: reads DATASETS, PATHS_CATALOG, MODEL.MASK_ON and KEYPOINT_ON, and the number of classes.
        name: a published name, or one of DATASETS.CUSTOM.
        is_train: leave out images without objects, unless they are to be kept.
        transforms: what happens to a sample.

    Raises:
        FileNotFoundError: when its files are not there; the message names the paths tried and the ways to get them.
        KeyError: when there is no such name.
        ValueError: when its annotations are faulty, or its format is not supported.
    """
    factory, args, common = make_dataset_arguments(cfg, name)
    keeps_background = common.pop("keep_background", cfg.DATASETS.KEEP_BACKGROUND)
    args.update(make_dataset_options(cfg, factory, is_train=is_train and not keeps_background))
    if factory not in dataset_classes.__all__:
        known = ", ".join(dataset_classes.__all__)
        raise ValueError(f"data set {name}: there is no class {factory} to read it; there are {known}")
    reader = getattr(dataset_classes, factory)
    if getattr(reader, "names_from_objects", False) and cfg.DATASETS.CLASSES:
        args.setdefault("classes", tuple(cfg.DATASETS.CLASSES))
    dataset = reader(**args, transforms=transforms)
    _take_subset(dataset, name, **common)
    return dataset


def make_dataset_arguments(cfg: CfgNode, name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What a data set's entry says.

    Args:
        cfg: reads DATASETS and PATHS_CATALOG.
        name: of the data set.

    Returns:
        The name of its class in ``data.datasets``, the arguments for that, and what says which images are taken:
        ``keep_background``, and the arguments of :func:`_take_subset`.

    Raises:
        FileNotFoundError, KeyError: see :func:`make_opened_dataset`.
    """
    try:
        entry = resolve_dataset(cfg, name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {_WAYS_TO_GET_DATA}") from None
    factory, args = entry.factory, dict(entry.args)
    if factory == "shapes":
        img_dir, ann_file = ensure_shapes_dataset(**args)
        factory, args = "COCODataset", {"root": img_dir, "ann_file": ann_file}
    common = {key: args.pop(key) for key in COMMON_KEYS if key in args}
    if "val_fraction" in common:
        common["split"] = args.pop("split")
    if isinstance(args.get("classes"), str):
        args["classes"] = read_class_names(args["classes"])
    return factory, args, common


def make_dataset_options(cfg: CfgNode, factory: str, *, is_train: bool) -> dict[str, Any]:
    """What a class of data sets takes beside the arguments of its catalogue entry; {} for a class of the user's own.

    Args:
        cfg: reads MODEL.MASK_ON, MODEL.KEYPOINT_ON and the number of classes.
        factory: name of the class.
        is_train: leave out images without objects.
    """
    options: dict[str, Any] = {"remove_images_without_annotations": is_train}
    if factory in ("LooseCOCODataset", "PascalVOCDataset"):
        return options
    if factory == "COCODataset":
        return {**options, "with_masks": cfg.MODEL.MASK_ON, "with_keypoints": cfg.MODEL.KEYPOINT_ON}
    if factory == "CityScapesDataset":
        evaluated_only = class_count(cfg) == _CITYSCAPES_EVALUATED + 1
        return {**options, "with_masks": cfg.MODEL.MASK_ON, "evaluated_only": evaluated_only}
    if factory in ("InstancePNGDataset", "LabelmeDataset", "VOCXmlDataset", "YOLODataset"):
        return {**options, "with_masks": cfg.MODEL.MASK_ON}
    return {}


def validate_class_names(cfg: CfgNode, dataset: DetectionDataset, name: str) -> None:
    """Check that a data set has the classes of the run, in their order.

    Args:
        cfg: reads DATASETS.CLASSES; without names in it there is nothing to check.
        dataset: the data set.
        name: of the data set, for the message.

    Raises:
        ValueError: when they differ; the message names the difference.
    """
    wanted, own = tuple(cfg.DATASETS.CLASSES), tuple(dataset.categories)
    if not wanted or own == wanted:
        return
    lacking, further = ([each for each in a if each not in b] for a, b in ((wanted, own), (own, wanted)))
    parts = [f"it lacks {', '.join(lacking)}"] if lacking else []
    parts += [f"it also has {', '.join(further)}"] if further else []
    raise ValueError(
        f"data set {name} has other classes than the run: {' and '.join(parts) or 'their order differs'} "
        f"(DATASETS.CLASSES: {', '.join(wanted)}; {name}: {', '.join(own)}); list the same classes in the same order"
    )


def _take_subset(
    dataset: Any, name: str, *, list_file: str | None = None, val_fraction: float | None = None, split: str = ""
) -> None:
    """Keep the images that a file lists, and of these those of a split.

    Args:
        dataset: has ``file_names`` and ``take``.
        name: of the data set, for messages.
        list_file: see :func:`listed_names`.
        val_fraction, split: see :func:`is_validation`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is faulty, or no image is left.
    """
    if list_file is None and val_fraction is None:
        return
    names = dataset.file_names()
    rows = listed_names(names, list_file) if list_file is not None else list(range(len(names)))
    if val_fraction is not None:
        rows = [row for row in rows if is_validation(names[row], val_fraction) == (split == "val")]
    dataset.take(rows)
    if not len(dataset):
        raise ValueError(
            f"data set {name}: no image is left; with few images choose another val_fraction, or list them"
        )
