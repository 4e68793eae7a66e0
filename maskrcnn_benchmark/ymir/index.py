"""Index files: which images a job is about, and where their annotations are."""

from __future__ import annotations

import os
from dataclasses import dataclass

from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode


@dataclass(frozen=True)
class IndexEntry:
    """One line of an index file.

    Args:
        image: path as it stands there.
        annotation: path likewise; "" in a list of candidates.
        line: number of the line, from 1.
    """

    image: str
    annotation: str
    line: int

    @property
    def name(self) -> str:
        """The base name of the image, by which the platform knows it; it need not have an ending."""
        return os.path.basename(self.image)


def read_candidates(path: str) -> list[str]:
    """The images of candidate-index.tsv, each once.

    Raises:
        JobError: the file or an image of it is missing, or there is none.
    """
    return list(dict.fromkeys(entry.image for entry in read_index(path, "candidate")))


def read_index(path: str, what: str) -> list[IndexEntry]:
    """The lines of an index file that are not blank; every image exists.

    Args:
        path: of the file.
        what: "training", "val" or "candidate", for messages.

    Raises:
        JobError: the file or an image of it is missing, or there is none.
    """
    if not path:
        raise JobError(ReturnCode.DATASET, f"env.yaml names no {what}_index_file")
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(ReturnCode.DATASET, f"the {what} index {path} cannot be read: {error}") from error
    entries = [_entry(line.rstrip("\r"), number) for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise JobError(ReturnCode.DATASET, f"the {what} index {path} lists no image; choose a data set that has some")
    for entry in entries:
        if not os.path.isfile(entry.image):
            raise JobError(ReturnCode.DATASET, f"{path} line {entry.line}: image {entry.image} does not exist")
    return entries


def _entry(line: str, number: int) -> IndexEntry:
    image, _, annotation = line.partition("\t")
    return IndexEntry(image, annotation, number)
