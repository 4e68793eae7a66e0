"""config.yaml: what a user set in the platform's form, beside what the platform itself adds."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.values import read_keys, to_flag, to_integer, to_names, to_number

DETECTION, INSTANCE_SEGMENTATION = 2, 4
_OBJECT_TYPES = {3: "semantic segmentation", 50: "multi-modal tasks"}
_EMPTY = ("", None)


@dataclass(frozen=True)
class JobSettings:
    """The keys of config.yaml, converted where they are read.

    Args:
        values: key -> value, flat.
        source: the file, for messages.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    source: str = "config.yaml"

    def text(self, key: str, default: str = "") -> str:
        """A text, stripped; the default where the key is missing or empty."""
        value = self.values.get(key)
        return default if value in _EMPTY else str(value).strip()

    def number(self, key: str, default: float) -> float:
        """A number; the default where the key is missing or empty."""
        value = self.values.get(key)
        return default if value in _EMPTY else to_number(value, key)

    def integer(self, key: str, default: int, *, least: int | None = None) -> int:
        """A whole number of at least ``least``; the default where the key is missing or empty."""
        value = self.values.get(key)
        number = default if value in _EMPTY else to_integer(value, key)
        if least is not None and number < least:
            raise JobError(ReturnCode.CONFIG, f"{key} must be at least {least}, got {value!r}")
        return number

    def flag(self, key: str, default: bool = False) -> bool:
        """A truth value; the default where the key is missing or empty."""
        value = self.values.get(key)
        return default if value in _EMPTY else to_flag(value, key)

    def names(self, key: str) -> list[str]:
        """The entries of a list or of a text with commas; empty ones are left out."""
        return to_names(self.values.get(key))

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of their labels 1, 2, ...

        Raises:
            JobError: there are none, or one stands twice.
        """
        names = self.names("class_names")
        if not names:
            raise JobError(ReturnCode.CONFIG, f"{self.source} has no class_names: choose at least one class")
        keys = [name.lower() for name in names]  # as the platform compares them
        doubled = [name for name, key in zip(names, keys, strict=True) if keys.count(key) > 1]
        if doubled:
            raise JobError(ReturnCode.CONFIG, f"class_names has {doubled[0]!r} twice; each class stands there once")
        return names

    @property
    def gpu_ids(self) -> list[int] | None:
        """The GPUs of the job, [] for the CPU, None where nothing is said of them.

        Raises:
            JobError: one is no number, or stands twice.
        """
        if self.values.get("gpu_id") is None:
            count = self.integer("gpu_count", -1)
            return list(range(count)) if count >= 0 else None
        ids = [to_integer(name, "gpu_id") for name in self.names("gpu_id")]
        if len(set(ids)) < len(ids) or any(number < 0 for number in ids):
            raise JobError(ReturnCode.CONFIG, f"gpu_id must name different GPUs, got {self.values['gpu_id']!r}")
        return ids

    @property
    def object_type(self) -> int | None:
        """2 for boxes, 4 for instances with masks; None where nothing is said, which older platforms do.

        Raises:
            JobError: it is a task that a Mask R-CNN does not do.
        """
        if self.values.get("object_type") in _EMPTY:
            return None
        value = to_integer(self.values["object_type"], "object_type")
        if value not in (DETECTION, INSTANCE_SEGMENTATION):
            what = f" ({_OBJECT_TYPES[value]})" if value in _OBJECT_TYPES else ""
            raise JobError(
                ReturnCode.OBJECT_TYPE,
                f"object_type {value}{what} is not supported; this image does 2 (detection) and 4 (instance "
                "segmentation)",
            )
        return value

    @property
    def batch_size(self) -> int:
        """Images of one step on each process."""
        return self.integer("batch_size_per_gpu", 2, least=1)

    @property
    def num_workers(self) -> int:
        """Threads or processes that read images, of each process."""
        return self.integer("num_workers_per_gpu", 2, least=0)

    @property
    def options(self) -> list[str]:
        """``cfg_options``: keys and values of the network's config, in turn.

        Raises:
            JobError: a quote is open, or a key has no value.
        """
        given = self.values.get("cfg_options")
        if isinstance(given, (list, tuple)):
            words = [str(word) for word in given]
        else:
            try:
                words = shlex.split(str(given or ""))
            except ValueError as error:
                raise JobError(ReturnCode.CONFIG, f"cfg_options {given!r} cannot be split: {error}") from error
        if len(words) % 2:
            raise JobError(
                ReturnCode.CONFIG,
                f"cfg_options must be keys and values in turn, such as 'SOLVER.WEIGHT_DECAY 0.0002', got {given!r}",
            )
        return words


def read_settings(path: str, *, root: str | None) -> JobSettings:
    """Read config.yaml, and below it the file that its key ``code_config`` names.

    Args:
        path: of config.yaml.
        root: folder of the code, at which ``code_config`` begins; None: only config.yaml is read.

    Raises:
        JobError: one of them is missing or holds no keys and values.
    """
    values = read_keys(path, "config file")
    further = str(values.get("code_config") or "").strip()
    if further and root is not None:
        values = {**read_keys(os.path.join(root, further), "config file"), **values}
    return JobSettings(values, path)
