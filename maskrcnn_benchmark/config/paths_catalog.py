"""The published data sets and weight files by name. A file of one's own with these two classes goes in PATHS_CATALOG.

An entry's keys say what it is: ``ann_file`` is COCO format, ``split`` in a ``data_dir`` is Pascal VOC, ``ann_dir`` is
Cityscapes' own format; a key ``factory`` names the class outright. The name plays no part.
"""

from __future__ import annotations

from typing import Any

# Vehicles and people in car parks; the data set numbers them from 1.
_PARKING_CLASSES = (
    "sedan", "SUV", "van", "bus", "school bus", "truck", "taxi", "adult", "child", "motorcycle", "kickboard", "bicycle",
    "stroller", "cart",
)  # fmt: skip
_PARKING_TRAIN = {
    "factory": "LooseCOCODataset",
    "root": "train/images",
    "ann_file": "train/label/Train.json",
    "classes": _PARKING_CLASSES,
    "val_fraction": 0.05,
}


class DatasetCatalog:
    """Data sets by name. Paths are relative to DATA_DIR; ``config.catalog.resolve_dataset`` finds them there."""

    DATA_DIR = "/datasets"
    DATASETS: dict[str, dict[str, Any]] = {
        "coco_2017_train": {"img_dir": "data/train2017", "ann_file": "data/annotations/instances_train2017.json"},
        "coco_2017_val": {"img_dir": "data/val2017", "ann_file": "data/annotations/instances_val2017.json"},
        "coco_2014_train": {"img_dir": "data/train2014", "ann_file": "data/annotations/instances_train2014.json"},
        "coco_2014_val": {"img_dir": "data/val2014", "ann_file": "data/annotations/instances_val2014.json"},
        "coco_2014_minival": {"img_dir": "data/val2014", "ann_file": "data/annotations/instances_minival2014.json"},
        "coco_2014_valminusminival": {
            "img_dir": "data/val2014",
            "ann_file": "data/annotations/instances_valminusminival2014.json",
        },
        "voc_2007_train": {"data_dir": "data/VOC2007", "split": "train"},
        "voc_2007_train_cocostyle": {
            "img_dir": "data/VOC2007/JPEGImages",
            "ann_file": "data/VOC2007/Annotations/pascal_train2007.json",
        },
        "voc_2007_val": {"data_dir": "data/VOC2007", "split": "val"},
        "voc_2007_val_cocostyle": {
            "img_dir": "data/VOC2007/JPEGImages",
            "ann_file": "data/VOC2007/Annotations/pascal_val2007.json",
        },
        "voc_2007_test": {"data_dir": "data/VOC2007", "split": "test"},
        "voc_2007_test_cocostyle": {
            "img_dir": "data/VOC2007/JPEGImages",
            "ann_file": "data/VOC2007/Annotations/pascal_test2007.json",
        },
        "voc_2012_train": {"data_dir": "data/VOC2012", "split": "train"},
        "voc_2012_train_cocostyle": {
            "img_dir": "data/VOC2012/JPEGImages",
            "ann_file": "data/VOC2012/Annotations/pascal_train2012.json",
        },
        "voc_2012_val": {"data_dir": "data/VOC2012", "split": "val"},
        "voc_2012_val_cocostyle": {
            "img_dir": "data/VOC2012/JPEGImages",
            "ann_file": "data/VOC2012/Annotations/pascal_val2012.json",
        },
        "voc_2012_test": {"data_dir": "data/VOC2012", "split": "test"},
        "cityscapes_fine_instanceonly_seg_train_cocostyle": {
            "img_dir": "data/images",
            "ann_file": "data/annotations/instancesonly_filtered_gtFine_train.json",
        },
        "cityscapes_fine_instanceonly_seg_val_cocostyle": {
            "img_dir": "data/images",
            "ann_file": "data/annotations/instancesonly_filtered_gtFine_val.json",
        },
        "cityscapes_fine_instanceonly_seg_test_cocostyle": {
            "img_dir": "data/images",
            "ann_file": "data/annotations/instancesonly_filtered_gtFine_test.json",
        },
        "keypoints_coco_2014_train": {
            "img_dir": "coco/train2014",
            "ann_file": "coco/annotations/person_keypoints_train2014.json",
        },
        "keypoints_coco_2014_val": {
            "img_dir": "coco/val2014",
            "ann_file": "coco/annotations/person_keypoints_val2014.json",
        },
        "keypoints_coco_2014_minival": {
            "img_dir": "coco/val2014",
            "ann_file": "coco/annotations/person_keypoints_minival2014.json",
        },
        "keypoints_coco_2014_valminusminival": {
            "img_dir": "coco/val2014",
            "ann_file": "coco/annotations/person_keypoints_valminusminival2014.json",
        },
        "cityscapes_poly_instance_train": {
            "img_dir": "cityscapes/leftImg8bit",
            "ann_dir": "cityscapes/gtFine",
            "split": "train",
            "mode": "poly",
        },
        "cityscapes_poly_instance_val": {
            "img_dir": "cityscapes/leftImg8bit",
            "ann_dir": "cityscapes/gtFine",
            "split": "val",
            "mode": "poly",
        },
        "cityscapes_poly_instance_minival": {
            "img_dir": "cityscapes/leftImg8bit",
            "ann_dir": "cityscapes/gtFine",
            "split": "val",
            "mode": "poly",
            "mini": 10,
        },
        "cityscapes_mask_instance_train": {
            "img_dir": "cityscapes/leftImg8bit",
            "ann_dir": "cityscapes/gtFine",
            "split": "train",
            "mode": "mask",
        },
        "cityscapes_mask_instance_val": {
            "img_dir": "cityscapes/leftImg8bit",
            "ann_dir": "cityscapes/gtFine",
            "split": "val",
            "mode": "mask",
        },
        "cityscapes_mask_instance_minival": {
            "img_dir": "cityscapes/leftImg8bit",
            "ann_dir": "cityscapes/gtFine",
            "split": "val",
            "mode": "mask",
            "mini": 10,
        },
        "parking_2022_train": {**_PARKING_TRAIN, "split": "train"},
        "parking_2022_val": {**_PARKING_TRAIN, "split": "val"},
        "parking_2022_test": {
            "factory": "LooseCOCODataset",
            "root": "test/images",
            "ann_file": "Test_Images_Information.json",
            "classes": _PARKING_CLASSES,
        },
    }

    @staticmethod
    def get(name: str) -> dict[str, Any]:
        """Return the class that reads the data set and its arguments: {"factory": ..., "args": {...}}.

        Raises KeyError for a name that is not in the catalogue.
        """
        from maskrcnn_benchmark.config.catalog import describe_entry

        if name not in DatasetCatalog.DATASETS:
            raise KeyError(f"data set {name} is not in the catalogue: {', '.join(DatasetCatalog.DATASETS)}")
        factory, args = describe_entry(name, DatasetCatalog.DATASETS[name])
        return {"factory": factory, "args": args}


class ModelCatalog:
    """Addresses of published weight files by the name that follows ``catalog://`` in MODEL.WEIGHT."""

    BASE_URL = "https://dl.fbaipublicfiles.com/detectron"
    IMAGENET_MODELS = {
        "MSRA/R-50": "MSRA/R-50.pkl",
        "MSRA/R-50-GN": "47261647/R-50-GN.pkl",
        "MSRA/R-101": "MSRA/R-101.pkl",
        "MSRA/R-101-GN": "47592356/R-101-GN.pkl",
        "FAIR/20171220/X-101-32x8d": "20171220/X-101-32x8d.pkl",
    }
    # Published checksums, by the end of the address; Detectron's own files have none.
    MD5 = {"/ImageNetPretrained/MSRA/R-50.pkl": "b19105fdd7baafb40480251377de18f2"}
    # Name -> the part of the address that marks the training run, and the data that it was trained on.
    DETECTRON_MODELS = {
        "35857197/e2e_faster_rcnn_R-50-C4_1x": "01_33_49.iAX0mXvW",
        "35857345/e2e_faster_rcnn_R-50-FPN_1x": "01_36_30.cUF7QR7I",
        "35857890/e2e_faster_rcnn_R-101-FPN_1x": "01_38_50.sNxI7sX7",
        "36761737/e2e_faster_rcnn_X-101-32x8d-FPN_1x": "06_31_39.5MIHi1fZ",
        "35858791/e2e_mask_rcnn_R-50-C4_1x": "01_45_57.ZgkA7hPB",
        "35858933/e2e_mask_rcnn_R-50-FPN_1x": "01_48_14.DzEQe4wC",
        "35861795/e2e_mask_rcnn_R-101-FPN_1x": "02_31_37.KqyEK4tT",
        "36761843/e2e_mask_rcnn_X-101-32x8d-FPN_1x": "06_35_59.RZotkLKI",
        "37129812/e2e_mask_rcnn_X-152-32x8d-FPN-IN5k_1.44x": "09_35_36.8pzTQKYK",
        "37697547/e2e_keypoint_rcnn_R-50-FPN_1x": "08_42_54.kdzV35ao",
    }

    @staticmethod
    def get(name: str) -> str:
        """Return the address of the weight file ``name``; raises KeyError for a name that is not in the catalogue."""
        kind, _, rest = name.partition("/")
        base = ModelCatalog.BASE_URL
        if kind == "ImageNetPretrained" and rest in ModelCatalog.IMAGENET_MODELS:
            return f"{base}/{kind}/{ModelCatalog.IMAGENET_MODELS[rest]}"
        rest = rest.removeprefix("COCO/")
        if kind == "Caffe2Detectron" and rest in ModelCatalog.DETECTRON_MODELS:
            run_id, model = rest.split("/")
            prefix = "keypoints_" if "keypoint" in model else ""
            splits = "%3A".join(f"{prefix}coco_2014_{split}" for split in ("train", "valminusminival"))
            run = f"{model}.yaml.{ModelCatalog.DETECTRON_MODELS[rest]}"
            return f"{base}/{run_id}/12_2017_baselines/{run}/output/train/{splits}/generalized_rcnn/model_final.pkl"
        raise KeyError(f"weights {name} are not in the catalogue: {', '.join(ModelCatalog.names())}")

    @staticmethod
    def checksum(url: str) -> str:
        """Return the published checksum of an address as ``md5=...``; "" where there is none."""
        known = (md5 for path, md5 in ModelCatalog.MD5.items() if url == ModelCatalog.BASE_URL + path)
        return next((f"md5={md5}" for md5 in known), "")

    @staticmethod
    def names() -> list[str]:
        """Return all names, as they follow ``catalog://``."""
        imagenet = [f"ImageNetPretrained/{name}" for name in ModelCatalog.IMAGENET_MODELS]
        return imagenet + [f"Caffe2Detectron/COCO/{name}" for name in ModelCatalog.DETECTRON_MODELS]
