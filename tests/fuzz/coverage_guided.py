"""Looks for files that the readers do not survive, guided by the code that they reach (needs the extra "fuzz").

python -m tests.fuzz.coverage_guided AREA FOLDER [-max_total_time=600 ...]

AREA is config, pickle, xml, labelme, yolo, header, packed or json. FOLDER keeps inputs that reach new code, and the
search goes on there next time. What ends in anything but a sentence with the file's name is written to crash-*; move it
to tests/fuzz/corpus/<config|weights|annotations|image>/<sound file>--<what it showed> and mend the reader.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["maskrcnn_benchmark", "yaml", "yacs", "pickletools"]):
    import yaml  # noqa: F401  instrumented

    from maskrcnn_benchmark.apps.errors import USER_ERRORS, describe
    from maskrcnn_benchmark.checkpoint.torch_file import check_torch_file
    from maskrcnn_benchmark.checkpoint.unpickle import read_arrays
    from maskrcnn_benchmark.config import cfg as defaults
    from maskrcnn_benchmark.config import validate
    from maskrcnn_benchmark.data.datasets.coco_json import pack_coco_json
    from maskrcnn_benchmark.data.datasets.folder_dataset import ImageFile
    from maskrcnn_benchmark.data.datasets.image_size import read_image_size
    from maskrcnn_benchmark.data.datasets.labelme import read_labelme
    from maskrcnn_benchmark.data.datasets.packed.file import load_packed
    from maskrcnn_benchmark.data.datasets.voc_xml import read_xml
    from maskrcnn_benchmark.data.datasets.yolo import _read_line, find_yolo_yaml

from tests.fuzz import seeds

SCRATCH = Path(tempfile.mkdtemp())


def _config(path: Path) -> None:
    cfg = defaults.clone()
    cfg.merge_from_file(path)
    cfg.MODEL.DEVICE = "cpu"
    validate(cfg)


def _pickle(path: Path) -> None:
    check_torch_file(str(path))
    read_arrays(str(path))


def _yolo(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    for line in filter(str.strip, text.splitlines()):
        try:
            _read_line(line.split(), ("a", "b"), (48, 64))
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error
    find_yolo_yaml(path, "train")


AREAS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "config": ("file.yaml", _config),
    "pickle": ("file.pkl", _pickle),
    "xml": ("file.xml", read_xml),
    "labelme": ("file.json", lambda path: read_labelme(ImageFile("a.jpg", path.with_suffix(".jpg"), path))),
    "yolo": ("file.txt", _yolo),
    "header": ("file.jpg", read_image_size),
    "packed": ("file.packed", load_packed),
    "json": ("file.json", pack_coco_json),
}
_SEEDS = {"xml": "voc", "labelme": "labelme", "yolo": "yolo", "packed": "packed", "json": "coco"}


def write_seeds(area: str, folder: Path) -> None:
    """Sound files to start from."""
    folder.mkdir(parents=True, exist_ok=True)
    contents: list[bytes] = []
    made = Path(tempfile.mkdtemp())
    if area == "config":
        contents = [text.encode() for text in seeds.config_texts().values()]
    elif area == "pickle":
        contents = [path.read_bytes() for path in seeds.write_weights(made) if path.suffix == ".pkl"]
    elif area == "header":
        contents = [path.read_bytes() for path in seeds.write_images(made)]
    else:
        contents = [seeds.write_annotations(_SEEDS[area], made / "set")[1].read_bytes()]
    for number, content in enumerate(contents):
        (folder / f"seed_{number}").write_bytes(content)


def main(arguments: list[str]) -> None:
    """Search until libFuzzer's options say to stop."""
    area, folder, *options = arguments[1:]
    name, use = AREAS[area]
    write_seeds(area, Path(folder))
    path = SCRATCH / name

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        try:
            use(path)
        except USER_ERRORS as error:
            if isinstance(error, MemoryError) or (area != "config" and path.stem not in describe(error)):
                raise

    atheris.Setup([arguments[0], folder, "-max_len=20000", "-timeout=30", "-rss_limit_mb=4000", *options], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
