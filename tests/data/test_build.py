from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import build, make_data_loader, make_dataset, validate_num_classes
from maskrcnn_benchmark.data.transforms.transforms import resized_size
from tests.data.tiny_coco import TinyCoco

NAME = "tiny_of_mine"


@pytest.fixture
def cfg(tiny: TinyCoco):
    cfg = global_cfg.clone()
    cfg.DATASETS.CUSTOM = tiny.custom(NAME)
    cfg.DATASETS.TRAIN = (NAME,)
    cfg.DATASETS.TEST = (NAME,)
    cfg.INPUT.MIN_SIZE_TRAIN = (32, 48, 64)
    cfg.INPUT.MAX_SIZE_TRAIN = 96
    cfg.INPUT.MIN_SIZE_TEST = 48
    cfg.INPUT.MAX_SIZE_TEST = 80
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.SIZE_DIVISIBILITY = 32
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.MAX_ITER = 8
    cfg.TEST.IMS_PER_BATCH = 2
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = 4
    return cfg


def assert_same_batch(first, second) -> None:
    assert first[2] == second[2]
    assert first[0].image_sizes == second[0].image_sizes
    torch.testing.assert_close(first[0].tensors, second[0].tensors, rtol=0, atol=0)
    for name in ("boxes", "labels"):
        torch.testing.assert_close(getattr(first[1], name), getattr(second[1], name), rtol=0, atol=0)
    for name in ("coords", "ring_offsets", "instance_offsets"):
        torch.testing.assert_close(getattr(first[1].polygons, name), getattr(second[1].polygons, name), rtol=0, atol=0)


def train_batches(cfg, start_iter: int = 0) -> list:
    return list(make_data_loader(cfg, start_iter=start_iter)[0])


def test_training_batches(cfg) -> None:
    loader, iterations_per_epoch = make_data_loader(cfg)
    assert (len(loader), iterations_per_epoch) == (8, 2)
    batches = list(loader)
    assert len(batches) == 8
    for images, targets, indices in batches:
        assert images.tensors.dtype == torch.float32
        assert images.tensors.shape[0] == len(indices) == len(targets)
        assert images.tensors.shape[2] % 32 == 0
        assert images.tensors.shape[3] % 32 == 0
        assert images.image_sizes == targets.image_sizes
        for (height, width), boxes, valid in zip(images.image_sizes, targets.boxes, targets.valid, strict=True):
            assert valid.any()  # the image without objects is not trained on
            assert (boxes[valid][:, 2] <= width).all()
            assert (boxes[valid][:, 3] <= height).all()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_the_batches(cfg, num_workers: int) -> None:
    expected = train_batches(cfg)
    cfg.DATALOADER.NUM_WORKERS = num_workers
    for first, second in zip(expected, train_batches(cfg), strict=True):
        assert_same_batch(first, second)


@pytest.mark.parametrize("start_iter", [1, 3, 5, 8])
def test_a_resumed_run_sees_the_same_batches(cfg, start_iter: int) -> None:
    expected = train_batches(cfg)[start_iter:]
    for first, second in zip(expected, train_batches(cfg, start_iter), strict=True):
        assert_same_batch(first, second)


def test_seed_and_epoch_change_the_samples(cfg) -> None:
    cfg.SOLVER.MAX_ITER = 12
    first = [(indices, images.image_sizes) for images, _, indices in make_data_loader(cfg)[0]]
    assert first[:4] != first[4:8]
    cfg.SEED = 1
    assert first != [(indices, images.image_sizes) for images, _, indices in make_data_loader(cfg)[0]]


def test_test_loader_goes_once_through_all_images(cfg) -> None:
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    (loader,) = make_data_loader(cfg, is_train=False)
    for _ in range(2):
        assert [indices for _, _, indices in loader] == [(0, 1), (2, 3), (4, 5)]
    dataset = loader.dataset
    assert [dataset.id_to_img_map[i] for i in range(6)] == [5, 8, 11, 17, 42, 300]
    assert dataset.contiguous_category_id_to_json_id == {1: 7, 2: 3, 3: 900}
    assert dataset.categories == ("kite", "ring", "bar")
    assert dataset.get_img_info(0) == {"id": 5, "height": 80, "width": 60, "file_name": "image_5.jpg"}
    assert sorted(dataset.coco.getImgIds()) == sorted(dataset.ids)


def test_aspect_grouping_keeps_batches_of_one_kind(cfg) -> None:
    (loader,) = make_data_loader(cfg, is_train=False)
    seen = [index for _, _, indices in loader for index in indices]
    assert sorted(seen) == list(range(6))
    for images, _, _ in loader:
        assert len({height >= width for height, width in images.image_sizes}) == 1


@pytest.mark.gpu
def test_batches_for_a_gpu_lie_in_pinned_memory(cfg) -> None:
    cfg.MODEL.DEVICE = "cuda"
    images, targets, _ = next(iter(make_data_loader(cfg)[0]))
    assert images.tensors.is_pinned()
    assert targets.boxes.is_pinned()
    assert targets.polygons.coords.is_pinned()


def test_several_training_sets_are_one(cfg, tiny: TinyCoco) -> None:
    cfg.DATASETS.CUSTOM = tiny.custom(NAME) + tiny.custom("other")
    cfg.DATASETS.TRAIN = (NAME, "other")
    loader, iterations_per_epoch = make_data_loader(cfg)
    assert len(loader.dataset) == 10
    assert iterations_per_epoch == 5
    seen = [index for batch in list(loader)[:5] for index in batch[2]]
    assert set(seen) <= set(range(10))
    assert max(seen) >= 5


def test_boxes_only(cfg) -> None:
    cfg.MODEL.MASK_ON = False
    assert all(targets.polygons is None for _, targets, _ in train_batches(cfg))


def test_class_count_must_fit_the_data(cfg) -> None:
    cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = 81
    for is_train in (True, False):
        with pytest.raises(ValueError, match=rf"{NAME} lists 3 categories.*needs 4.*ROI_BOX_HEAD.NUM_CLASSES is 81"):
            make_data_loader(cfg, is_train=is_train)
    cfg.MODEL.RPN_ONLY = True
    validate_num_classes(cfg, make_dataset(cfg, NAME, is_train=True), NAME)


def test_bad_settings_are_named(cfg, tiny: TinyCoco) -> None:
    cfg.SOLVER.IMS_PER_BATCH = 0
    with pytest.raises(ValueError, match=r"SOLVER.IMS_PER_BATCH \(0\) must be a positive multiple"):
        make_data_loader(cfg)
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.DATALOADER.NUM_WORKERS = -1
    with pytest.raises(ValueError, match=r"DATALOADER.NUM_WORKERS must not be negative, got -1"):
        make_data_loader(cfg)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.BACKEND = "turbo"
    with pytest.raises(ValueError, match=r"DATALOADER.BACKEND must be one of auto, workers, dali, nvjpeg, got 'turbo'"):
        make_data_loader(cfg)
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ValueError, match=r"DATASETS.TRAIN names no data set"):
        make_data_loader(cfg)
    cfg.INPUT.HUE = 0.7
    with pytest.raises(ValueError, match=r"INPUT.HUE must be 0 to 0.5, .* but is 0.7"):
        make_dataset(cfg, NAME, is_train=True)


def test_missing_files_are_named(cfg, tiny: TinyCoco, tmp_path: Path) -> None:
    (tiny.root / "image_17.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"image .*image_17.jpg does not exist"):
        train_batches(cfg)
    for key in ("img_dir", "ann_file"):
        cfg.DATASETS.CUSTOM = [{**tiny.custom(NAME)[0], key: "nowhere"}]
        cfg.DATASETS.DATA_DIR = str(tmp_path)
        with pytest.raises(FileNotFoundError) as error:
            make_data_loader(cfg)
        for part in (f"{tmp_path}/data/nowhere", f"{tmp_path}/nowhere", "DATA_DIR", "download_dataset.sh", "CUSTOM"):
            assert part in str(error.value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_damaged_images_are_named(cfg, tiny: TinyCoco, num_workers: int) -> None:
    path = tiny.root / "image_17.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    cfg.DATALOADER.NUM_WORKERS = num_workers
    with pytest.raises(ValueError, match=r"image .*image_17.jpg is truncated"):
        train_batches(cfg)


def test_masks_must_be_there_to_train_on(cfg, tiny: TinyCoco) -> None:
    for annotation in tiny.data["annotations"]:
        del annotation["segmentation"]
    tiny.ann_file.write_text(json.dumps(tiny.data))
    with pytest.raises(ValueError, match=rf"{NAME} has no segmentation.*MODEL.MASK_ON to False"):
        make_data_loader(cfg)
    make_data_loader(cfg, is_train=False)
    cfg.MODEL.MASK_ON = False
    assert len(make_data_loader(cfg)[0].dataset) == 5


def test_shares_of_two_processes(cfg, monkeypatch) -> None:
    """Without a process group: each share is what one of two processes would load."""
    monkeypatch.setattr(build, "get_world_size", lambda: 2)

    def shares(**kwargs) -> list[list]:
        found = []
        for rank in range(2):
            monkeypatch.setattr(build, "get_rank", lambda rank=rank: rank)
            made = make_data_loader(cfg, is_distributed=True, **kwargs)
            found.append(list(made[0]))
        return found

    whole = shares()
    assert all(len(indices) == 1 for share in whole for _, _, indices in share)
    epoch = [indices[0] for share in whole for _, _, indices in share[:3]]
    assert len(epoch) == 6
    assert set(epoch) == set(range(5))  # five images, one of them twice
    for rank, share in enumerate(shares(start_iter=4)):
        for first, second in zip(whole[rank][4:], share, strict=True):
            assert_same_batch(first, second)
    seen = [[index for _, _, indices in share for index in indices] for share in shares(is_train=False)]
    assert [sorted(share) for share in seen] == [[0, 1, 2], [3, 4, 5]]
    cfg.SOLVER.IMS_PER_BATCH = 3
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH \(3\) must be a positive multiple .* \(2\); set it to 2"):
        make_data_loader(cfg, is_distributed=True)


def test_real_photos(cfg, external_data) -> None:
    """80 photos of COCO through both loaders: every object of the json arrives, crowds and empty boxes apart."""
    folder = external_data("coco_tiny")
    cfg.DATASETS.DATA_DIR = str(folder)
    cfg.DATASETS.TRAIN = ("coco_2017_train",)
    cfg.DATASETS.TEST = ("coco_2017_val",)
    cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = 81
    cfg.INPUT.MIN_SIZE_TEST = 96
    (loader,) = make_data_loader(cfg, is_train=False)
    dataset = loader.dataset
    assert len(dataset) == 80
    labels: Counter[int] = Counter()
    for images, targets, indices in loader:
        assert torch.isfinite(images.tensors).all()
        for n, index in enumerate(indices):
            info = dataset.get_img_info(index)
            assert images.image_sizes[n] == resized_size((info["height"], info["width"]), min_size=96, max_size=80)
        labels.update(targets.labels[targets.valid].tolist())
    coco = COCO(str(folder / "annotations" / "instances_val2017.json"))
    rows = [item for item in coco.dataset["annotations"] if not item["iscrowd"] and min(item["bbox"][2:]) > 1]
    expected = Counter(item["category_id"] for item in rows)
    assert {dataset.contiguous_category_id_to_json_id[label]: count for label, count in labels.items()} == expected
    assert len(make_data_loader(cfg)[0].dataset) <= 80
