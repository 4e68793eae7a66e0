"""Batches that are decoded whole: the same samples, targets and errors as where the workers decode."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest
import torch

from maskrcnn_benchmark.data import make_data_loader, make_dataset
from maskrcnn_benchmark.data.datasets import COCODataset, ConcatDataset, ListDataset
from maskrcnn_benchmark.data.image_io import decode_image
from maskrcnn_benchmark.data.loaders import DecodingLoader, backends, build, choose_backend
from maskrcnn_benchmark.data.loaders.encoded import BatchReader, UndecodableError, why_not_encoded
from maskrcnn_benchmark.data.loaders.jpeg_header import plain_jpeg_size
from maskrcnn_benchmark.data.loaders.nvjpeg import NvjpegDecoder, scaled
from tests.data.loader_checks import (
    MORE_WORKERS_THAN_CORES,
    NAME,
    OpenCVDecoder,
    assert_same,
    assert_same_samples,
    differences,
    encode,
    shares_of_two,
    train_batches,
)
from tests.data.tiny_coco import TinyCoco

pytestmark = MORE_WORKERS_THAN_CORES

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def decoder(monkeypatch) -> OpenCVDecoder:
    """In place of DALI's."""
    decoder = OpenCVDecoder(CPU)
    monkeypatch.setattr(build, "DaliDecoder", lambda device, num_threads: decoder)
    monkeypatch.setattr(backends, "what_dali_lacks", lambda: "")
    return decoder


def photo(height: int, width: int) -> np.ndarray:
    """Smooth colours with some grain, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width] / 9.0
    grain = np.random.RandomState(0).randint(-12, 13, (height, width, 3))
    smooth = np.stack([np.sin(x + y), np.cos(x - y / 2), np.sin(y * x / 20)], axis=-1)
    return (128 + 90 * smooth + grain).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_same_batches_for_any_number_of_workers(cfg, decoder, num_workers: int) -> None:
    expected = train_batches(cfg)
    cfg.merge_from_list(["DATALOADER.BACKEND", "dali", "DATALOADER.NUM_WORKERS", num_workers])
    loader, iterations_per_epoch = make_data_loader(cfg, keep_pixels=True)
    assert isinstance(loader, DecodingLoader)
    assert (len(loader), iterations_per_epoch, len(loader.dataset)) == (8, 2, 5)
    assert_same(list(loader), expected)
    assert sorted(decoder.seen) == sorted(indices for _, _, indices in expected)
    assert len({images.tensors.shape for images, _, _ in expected}) > 1


def test_same_batches_for_two_processes(cfg, decoder, monkeypatch) -> None:
    expected = shares_of_two(cfg, monkeypatch)
    monkeypatch.setattr(build, "choose_backend", lambda *args, **kwargs: "dali")
    monkeypatch.setattr(build, "DaliDecoder", lambda device, num_threads: decoder)
    with monkeypatch.context() as patch:
        found = shares_of_two(cfg, patch)
    for share, wanted in zip(found, expected, strict=True):
        assert_same(share, wanted)
    assert len(decoder.seen) == 16


@pytest.mark.parametrize("start_iter", [1, 5, 8])
def test_a_resumed_run_sees_the_same_batches(cfg, decoder, start_iter: int) -> None:
    expected = train_batches(cfg)[start_iter:]
    cfg.merge_from_list(["DATALOADER.BACKEND", "dali", "DATALOADER.NUM_WORKERS", 1])
    assert_same(train_batches(cfg, start_iter), expected)


def test_normalised_batches_shapes_and_testing(cfg, decoder) -> None:
    cfg.merge_from_list(["INPUT.SHAPE_BUCKETS", ((96, 128), (128, 96)), "INPUT.PIXEL_STD", [57.0, 58.0, 59.0]])
    expected = train_batches(cfg, keep_pixels=False)
    (wanted_loader,) = make_data_loader(cfg, is_train=False)
    cfg.DATALOADER.BACKEND = "dali"
    assert_same(train_batches(cfg, keep_pixels=False), expected)
    assert expected[0][0].tensors.dtype == torch.float32
    (loader,) = make_data_loader(cfg, is_train=False)
    assert isinstance(loader, DecodingLoader)
    for _ in range(2):
        assert_same(list(loader), list(wanted_loader))


def test_files_that_are_no_plain_jpegs_are_decoded_by_opencv(cfg, decoder, tiny: TinyCoco) -> None:
    """A PNG file under a JPEG's name: its batches are whole OpenCV's, the others the decoder's."""
    path = tiny.root / "image_17.jpg"
    path.write_bytes(encode(cv2.imread(str(path)), ".png"))
    expected = train_batches(cfg)
    cfg.DATALOADER.BACKEND = "dali"
    assert_same(train_batches(cfg), expected)
    (loader, _) = make_data_loader(cfg)
    odd = {n for n in range(5) if loader.dataset.get_img_info(n)["file_name"] == path.name}
    assert decoder.seen == [indices for _, _, indices in expected if not odd & set(indices)]
    assert 0 < len(decoder.seen) < 8


@pytest.mark.parametrize(
    ("num_workers", "ahead"),
    [(0, 0), (0, 2), pytest.param(1, 2, marks=pytest.mark.slow)],  # PyTorch takes 5 s to end a worker after an error
)
@pytest.mark.parametrize("fault", ["missing", "truncated", "empty", "size"])
def test_broken_files_give_the_errors_of_the_plain_loader(cfg, decoder, tiny, fault, num_workers, ahead) -> None:
    """In the same iteration, and those before it are handed out."""
    path = tiny.root / "image_17.jpg"
    data = path.read_bytes()
    broken = {"truncated": data[:-200], "empty": b"", "size": encode(np.zeros((30, 40, 3), np.uint8), ".jpg")}
    path.unlink() if fault == "missing" else path.write_bytes(broken[fault])
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", num_workers])
    seen, messages = [], []
    for backend in ("workers", "dali"):
        cfg.DATALOADER.BACKEND = backend
        seen.append([])
        loader, _ = make_data_loader(cfg)
        loader.ahead = ahead
        with pytest.raises((ValueError, FileNotFoundError), match=r"image_17\.jpg") as error:
            seen[-1].extend(indices for _, _, indices in loader)
        messages.append([line for line in str(error.value).splitlines() if "image_17.jpg" in line][-1])
    assert seen[0] == seen[1]
    assert messages[0] == messages[1]


def test_what_the_decoder_refuses_opencv_decodes(cfg, decoder, caplog) -> None:
    expected = train_batches(cfg)
    cfg.merge_from_list(["DATALOADER.BACKEND", "dali", "DATALOADER.NUM_WORKERS", 2])
    refused = expected[3][2]

    class Picky(OpenCVDecoder):
        def __call__(self, batch):
            if batch.indices == refused:
                raise UndecodableError("odd tables")
            return super().__call__(batch)

    loader, _ = make_data_loader(cfg, keep_pixels=True)
    loader.decode = Picky(CPU)
    with caplog.at_level(logging.WARNING):
        assert_same(list(loader), expected)
    times = sum(indices == refused for _, _, indices in expected)
    assert [record.getMessage() for record in caplog.records] == times * [
        f"Picky cannot decode the batch of samples {refused} (odd tables); OpenCV decodes it instead"
    ]

    def fail(batch):
        raise RuntimeError("out of something")

    loader.decode = fail  # any other error is one
    with pytest.raises(RuntimeError, match="out of something"):
        list(loader)


@pytest.mark.parametrize("fault", ["missing", "truncated"])
def test_broken_images_are_passed_over_as_by_the_plain_loader(cfg, decoder, tiny: TinyCoco, fault: str) -> None:
    path = tiny.root / "image_17.jpg"
    path.unlink() if fault == "missing" else path.write_bytes(path.read_bytes()[:-200])
    cfg.DATALOADER.BROKEN_IMAGES = "skip"
    expected, (plain,) = train_batches(cfg), make_data_loader(cfg, is_train=False, keep_pixels=True)
    cfg.merge_from_list(["DATALOADER.BACKEND", "dali", "DATALOADER.NUM_WORKERS", 1])
    loader, _ = make_data_loader(cfg, keep_pixels=True)
    assert_same(list(loader), expected)
    assert sum(loader.dataset.broken_images.take_counts().values()) >= 2  # in two epochs
    assert 0 < len(decoder.seen) < 8
    (loader,) = make_data_loader(cfg, is_train=False, keep_pixels=True)
    assert_same(list(loader), list(plain))


def test_an_iteration_can_be_left_early(cfg, decoder) -> None:
    cfg.merge_from_list(["DATALOADER.BACKEND", "dali", "DATALOADER.NUM_WORKERS", 1])
    loader, _ = make_data_loader(cfg)
    assert loader.ahead == 2
    first = next(iter(loader))
    assert_same([first], list(loader)[:1])


def test_only_usual_data_sets_are_encoded(cfg, decoder, tiny: TinyCoco, caplog) -> None:
    class Cropped(COCODataset):
        def load_image(self, index):
            return super().load_image(index)[:30]

    class Own(COCODataset):
        def __getitem__(self, key):
            return super().__getitem__(key)

    dataset = make_dataset(cfg, NAME, is_train=True)
    transforms = dataset.transforms
    assert why_not_encoded(dataset) == ""
    assert why_not_encoded(ConcatDataset([dataset, dataset])) == ""
    made = {kind: kind(str(tiny.ann_file), str(tiny.root), True, transforms=transforms) for kind in (Cropped, Own)}
    for kind, own in made.items():
        assert why_not_encoded(own) == f"{kind.__name__} reads its images in its own way"
    assert why_not_encoded(ConcatDataset([dataset, made[Own]])) == "Own reads its images in its own way"
    assert why_not_encoded(ListDataset([], transforms)) == "ListDataset reads its images in its own way"
    assert why_not_encoded([]) == "list reads its images in its own way"
    dataset.transforms = None
    assert why_not_encoded(dataset) == "COCODataset has transforms of its own"
    with pytest.raises(NotImplementedError, match="ListDataset does not say which file"):
        ListDataset([]).image_path(0)
    cfg.merge_from_list(["DATALOADER.BACKEND", "dali", "INPUT.HUE", 0.1])
    backends.warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not any(isinstance(make_data_loader(cfg)[0], DecodingLoader) for _ in range(2))
    assert len(caplog.records) == 1
    assert "not by dali: colours are changed (INPUT.BRIGHTNESS" in caplog.text


def test_several_data_sets_as_one(cfg, decoder, tiny: TinyCoco) -> None:
    cfg.DATASETS.CUSTOM = tiny.custom(NAME) + tiny.custom("other")
    cfg.DATASETS.TRAIN = (NAME, "other")
    expected = train_batches(cfg)
    cfg.DATALOADER.BACKEND = "dali"
    assert_same(train_batches(cfg), expected)
    assert len(decoder.seen) == 8


def test_test_time_augmentation_sees_pictures(cfg, decoder) -> None:
    cfg.merge_from_list(["DATALOADER.BACKEND", "dali", "TEST.BBOX_AUG.ENABLED", True])
    (loader,) = make_data_loader(cfg, is_train=False)
    assert not isinstance(loader, DecodingLoader)


@pytest.mark.parametrize(
    ("backend", "hybrid", "device", "there", "chosen", "named"),
    [
        ("auto", True, CUDA, "dali nvjpeg", "dali", ""),
        ("auto", True, CUDA, "nvjpeg", "nvjpeg", ""),
        ("auto", True, CUDA, "", "workers", "[dali] [nvjpeg]"),
        ("auto", False, CUDA, "dali nvjpeg", "workers", ""),
        ("auto", True, CPU, "dali", "workers", ""),
        ("workers", True, CUDA, "dali nvjpeg", "workers", ""),
        ("dali", False, CPU, "dali", "dali", ""),
        ("dali", True, CUDA, "nvjpeg", "workers", "[dali]"),
        ("nvjpeg", False, CUDA, "dali nvjpeg", "nvjpeg", ""),
        ("nvjpeg", True, CUDA, "dali", "workers", "[nvjpeg]"),
    ],
)
def test_which_backend_is_taken(monkeypatch, caplog, backend, hybrid, device, there, chosen, named) -> None:
    backends.warn_once.cache_clear()
    monkeypatch.setattr(backends, "what_dali_lacks", lambda: "" if "dali" in there else "no module")
    monkeypatch.setattr(backends, "what_nvjpeg_lacks", lambda device: "" if "nvjpeg" in there else "no module")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert choose_backend(backend, hybrid=hybrid, device=device) == chosen
    assert len(caplog.records) == bool(named)
    for extra in ("[dali]", "[nvjpeg]"):
        assert (f"maskrcnn_benchmark{extra}" in caplog.text) == (extra in named)


def test_what_is_lacking_is_told(monkeypatch) -> None:
    assert backends.what_nvjpeg_lacks(CPU) == "it needs a CUDA device, and MODEL.DEVICE is cpu"

    def fail(name):
        raise ImportError(f"no {name}\nand more")

    monkeypatch.setattr(backends.importlib, "import_module", fail)
    assert backends.what_dali_lacks() == "no nvidia.dali.fn"
    assert backends.what_nvjpeg_lacks(CUDA) == "no torchvision.io"


def test_headers_of_jpeg_files() -> None:
    image = photo(37, 53)
    plain = encode(image, ".jpg")
    assert plain_jpeg_size(plain) == (37, 53)
    assert plain_jpeg_size(encode(image, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)) == (37, 53)
    assert plain_jpeg_size(encode(image[..., 0], ".jpg")) == (37, 53)
    filled = plain[:2] + b"\xff\xff" + plain[2:]
    assert plain_jpeg_size(filled) == decode_image(filled, name="").shape[:2] == (37, 53)
    frame = plain.index(b"\xff\xc0")
    jfif_end = 4 + int.from_bytes(plain[4:6], "big")
    bare = plain[:2] + plain[jfif_end:]
    assert plain_jpeg_size(bare) == (37, 53)
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
    assert plain_jpeg_size(bare[:2] + adobe + b"\x01" + bare[2:]) == (37, 53)
    odd = {
        "RGB by Adobe's marker": bare[:2] + adobe + b"\x00" + bare[2:],
        "RGB by its names": bare.replace(plain[frame + 10 : frame + 19], bytes([82, 34, 0, 71, 17, 1, 66, 17, 1])),
        "arithmetic": plain.replace(b"\xff\xc0", b"\xff\xc9"),
        "lossless": plain.replace(b"\xff\xc0", b"\xff\xc3"),
        "12 bits": plain[: frame + 4] + b"\x0c" + plain[frame + 5 :],
        "four colours": plain[: frame + 9] + b"\x04" + plain[frame + 10 :],
        "height later": plain[: frame + 5] + b"\0\0" + plain[frame + 7 :],
        "PNG": encode(image, ".png"),
        "empty": b"",
    }
    assert {kind for kind, data in odd.items() if plain_jpeg_size(data) is not None} == set()
    assert all(plain_jpeg_size(plain[:length]) is None for length in range(frame + 8))


def rgb_on_host(files) -> list[torch.Tensor]:
    """What torchvision's decoder returns, by OpenCV."""
    images = [cv2.imdecode(file.numpy(), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) for file in files]
    return [torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) for image in images]


def test_batches_of_nvjpeg_with_a_decoder_of_the_host(cfg) -> None:
    """Scaling, mirroring, order of colours and padding are those of the workers, up to a level."""
    expected = train_batches(cfg)
    loader, _ = make_data_loader(cfg, keep_pixels=True)
    reader = BatchReader(loader.dataset, loader.collate_fn)
    decoding = DecodingLoader(
        torch.utils.data.DataLoader(reader, sampler=loader.batch_sampler, batch_size=None, collate_fn=lambda b: b),
        reader,
        NvjpegDecoder(CPU, decode=rgb_on_host),
    )
    found = list(decoding)
    assert_same_samples(found, expected)
    mean, largest = differences(found, expected)
    assert largest <= 1
    assert mean < 0.2


@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True), (True, True)])
def test_scaling_of_nvjpeg_equals_opencv(mirrored) -> None:
    image = photo(60, 80)
    chw = torch.from_numpy(image).permute(2, 0, 1)
    for height, width in ((60, 80), (93, 124), (31, 47)):
        wanted = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        wanted = wanted[:: -1 if mirrored[1] else 1, :: -1 if mirrored[0] else 1]
        found = scaled(chw, (height, width), mirrored).permute(1, 2, 0)
        assert np.abs(found.numpy().astype(int) - wanted).max() <= (0 if (height, width) == (60, 80) else 1)
