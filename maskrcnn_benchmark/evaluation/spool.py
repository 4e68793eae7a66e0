"""The results of a run on disk while it goes on: one record an image, in any order, read again in ascending order.

A record holds what predictions.pth takes of an image, its COCO results as columns, and their JSON text.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from torch import Tensor

from maskrcnn_benchmark.structures.bounding_box import BoxList

from .columns import Detections, Masks
from .lists import CocoLists
from .predictions_file import PredictionsWriter
from .results import image_detections, plain_entry, prediction_of

_CHUNK = 16 << 20  # bytes of records that travel between processes at a time

Record = tuple[int, bytes]


class ResultSpool:
    """Takes predictions image by image.

    Args:
        dataset: see `results`.
        iou_types: the COCO results that are wanted.
        output_folder: where the files are to be; None keeps no masks and writes no files.
    """

    def __init__(self, dataset: Any, iou_types: Sequence[str], output_folder: str | os.PathLike[str] | None) -> None:
        self.dataset = dataset
        self.iou_types = tuple(iou_types)
        self.output_folder = Path(output_folder) if output_folder is not None else None
        if self.output_folder is not None:
            self.output_folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=self.output_folder)  # noqa: SIM115  (open until close)
        self._places: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, index: int, prediction: BoxList) -> None:
        """Convert and keep the prediction of an image, which is in the pixels of the network."""
        tensors = plain_entry(prediction)
        if self.output_folder is None:
            tensors.pop("mask", None)
        tensors["size"] = torch.tensor(tensors["size"])
        for iou_type in self.iou_types:
            columns = image_detections(index, prediction, self.dataset, iou_type)
            tensors[f"{iou_type}.json"] = _bytes_tensor(orjson.dumps(columns.to_list())[1:-1])
            tensors |= {f"{iou_type}.{name}": value for name, value in _tensors_of(columns).items()}
        self._append((index, _pack(tensors)))

    def _append(self, record: Record) -> None:
        index, content = record
        self._file.seek(0, os.SEEK_END)
        self._places.setdefault(index, (self._file.tell(), len(content)))
        self._file.write(content)

    def chunks(self) -> Iterator[list[Record]]:
        """All records, in parts that another process can be sent."""
        part: list[Record] = []
        size = 0
        for index, (_, length) in self._places.items():
            part.append((index, self._read(index)))
            size += length
            if size >= _CHUNK:
                yield part
                part, size = [], 0
        if part:
            yield part

    def absorb(self, records: Sequence[Record]) -> None:
        """Take over records of another process; of an image that is here already the own one stays."""
        for record in records:
            if record[0] not in self._places:
                self._append(record)

    def finish(self) -> tuple[dict[int, BoxList], CocoLists]:
        """Write predictions.pth and the result files, each complete or not at all.

        Returns:
            The predictions without their masks, by ascending index, and the COCO results.
        """
        parts: dict[str, list[Detections]] = {iou_type: [] for iou_type in self.iou_types}
        predictions = {}
        with _Files(self.output_folder, self.iou_types) as files:
            for index in sorted(self._places):
                tensors = _unpack(self._read(index))
                texts = {iou_type: tensors.pop(f"{iou_type}.json").numpy().tobytes() for iou_type in self.iou_types}
                for iou_type, own in parts.items():
                    if texts[iou_type]:
                        own.append(self._columns(index, iou_type, tensors))
                entry = {name: value for name, value in tensors.items() if "." not in name}
                entry["size"] = tuple(entry["size"].tolist())
                files.add(index, entry, texts)
                entry.pop("mask", None)
                predictions[index] = prediction_of(entry)
        return predictions, CocoLists({t: Detections.join(own, t) for t, own in parts.items()})

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def _read(self, index: int) -> bytes:
        begin, length = self._places[index]
        self._file.seek(begin)
        return self._file.read(length)

    def _columns(self, index: int, iou_type: str, tensors: Mapping[str, Tensor]) -> Detections:
        prefix = f"{iou_type}."
        arrays = {name.removeprefix(prefix): t.numpy() for name, t in tensors.items() if name.startswith(prefix)}
        text = arrays.pop("text", None)
        if text is not None:
            arrays["masks"] = Masks(text, arrays.pop("offsets"), arrays.pop("sizes"))
        image_id = self.dataset.id_to_img_map[index]
        return Detections(image_ids=np.array([image_id] * len(arrays["scores"])), **arrays)


class _Files:
    """The files of an evaluation, growing image by image under temporary names; an error leaves none of them."""

    def __init__(self, folder: Path | None, iou_types: Sequence[str]) -> None:
        self.writer = PredictionsWriter(folder / "predictions.pth") if folder is not None else None
        self.paths = {t: folder / f"{t}.json" for t in iou_types} if folder is not None else {}
        self.texts = {t: open(f"{path}.tmp", "wb") for t, path in self.paths.items()}  # noqa: SIM115
        for file in self.texts.values():
            file.write(b"[")

    def __enter__(self) -> _Files:
        return self

    def add(self, index: int, entry: Mapping[str, Any], texts: Mapping[str, bytes]) -> None:
        if self.writer is not None:
            self.writer.add(index, entry)
        for iou_type, file in self.texts.items():
            if texts[iou_type]:
                file.write((b",\n" if file.tell() > 1 else b"") + texts[iou_type])

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for iou_type, file in self.texts.items():
            file.write(b"]")
            file.close()
            if kind is None:
                Path(file.name).replace(self.paths[iou_type])
            else:
                Path(file.name).unlink()
        if self.writer is not None:
            self.writer.close() if kind is None else self.writer.discard()


def _tensors_of(columns: Detections) -> dict[str, Tensor]:
    """The columns of one image but its id."""
    arrays = {"category_ids": columns.category_ids, "scores": columns.scores}
    arrays |= {name: getattr(columns, name) for name in ("boxes", "keypoints") if getattr(columns, name) is not None}
    if columns.masks is not None:
        arrays |= {"text": columns.masks.text, "offsets": columns.masks.offsets, "sizes": columns.masks.sizes}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _bytes_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Names, types and shapes as a line of JSON, then the data of one after the other."""
    head = [(name, str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()]
    data = [t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for t in tensors.values() if t.numel()]
    return b"\n".join([orjson.dumps(head), b"".join(data)])


def _unpack(record: bytes) -> dict[str, Tensor]:
    head, _, data = record.partition(b"\n")
    buffer, begin, tensors = bytearray(data), 0, {}
    for name, type_name, shape in orjson.loads(head):
        dtype, count = getattr(torch, type_name), int(np.prod(shape, dtype=np.int64))
        if count:
            # A copy, for the data may begin anywhere.
            own = torch.frombuffer(buffer, dtype=torch.uint8, count=count * dtype.itemsize, offset=begin).clone()
            tensors[name] = own.view(dtype).reshape(shape)
        else:
            tensors[name] = torch.zeros(shape, dtype=dtype)
        begin += count * dtype.itemsize
    return tensors
