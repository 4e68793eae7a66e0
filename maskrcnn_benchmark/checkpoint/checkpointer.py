"""Save a run so that it can go on, and go on from what was saved."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.background import Background, copy_to_host
from maskrcnn_benchmark.checkpoint.download import fetch
from maskrcnn_benchmark.checkpoint.files import save_atomically
from maskrcnn_benchmark.checkpoint.formats import Weights, read_any
from maskrcnn_benchmark.checkpoint.history import newest_checkpoint, read_newest, remove_older, tag_newest
from maskrcnn_benchmark.checkpoint.inputs import ImageInput
from maskrcnn_benchmark.checkpoint.weights import LoadReport, fill_from_weights, load_whole, model_state, shorten
from maskrcnn_benchmark.config.catalog import CATALOG_PREFIX, ModelCatalog, resolve_model
from maskrcnn_benchmark.solver import load_optimizer_state
from maskrcnn_benchmark.utils.comm import broadcast, get_local_world_size, get_world_size, is_main_process

FORMAT_VERSION = 1
OWN_KEYS = ("model", "optimizer", "scheduler", "config", "format_version", "world_size")


class Checkpointer:
    """Write and read the checkpoints of one run.

    A checkpoint is a dict with the published keys ``model``, ``optimizer``, ``scheduler`` and what ``save`` is given
    (``iteration``, ``scaler``), plus ``world_size``, ``config`` (YAML text) and ``format_version``. It is written
    beside its place and renamed, so that a kill at any moment leaves the earlier one whole, and holds checksums, so
    that a damaged one is known and the one before is taken.

    Args:
        model: the network, wrapped for several processes or not.
        optimizer, scheduler: saved and restored when given.
        save_dir: folder of the checkpoints; "" for none.
        save_to_disk: whether this process writes (rank 0).
        logger: where messages go.
        config_text: the run's config as YAML.
        resolve: the address or path of a ``catalog://`` name; without it, the package's own catalogue is asked.
        image_input: what images the config makes, compared with what the weights were trained with.
        keep: how many of the numbered checkpoints (model_0002500.pth) stay, beside model_final.pth; 0 for all.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Any = None,
        save_dir: str = "",
        save_to_disk: bool | None = None,
        logger: logging.Logger | None = None,
        *,
        keep: int = 0,
        config_text: str = "",
        resolve: Callable[[str], str] | None = None,
        image_input: Callable[[], ImageInput] | None = None,
    ) -> None:
        self.model = getattr(model, "module", model)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.save_dir = save_dir
        self.save_to_disk = bool(save_to_disk)
        self.logger = logger or logging.getLogger("maskrcnn_benchmark.checkpoint")
        self.keep = keep
        self.config_text = config_text
        self.source = ""  # the checkpoint of this run that ``load`` took
        self.write_seconds = 0.0  # what the longest write so far took
        self._background = Background()
        self._resolve = resolve or (lambda name: ModelCatalog.get(name.removeprefix(CATALOG_PREFIX)))
        self._image_input = image_input

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``save_dir/name.pth`` and make it the last one.

        Args:
            name: file name without its ending.
            kwargs: further entries of plain data, such as iteration.

        Raises:
            OSError: it cannot be written; what was there before is still there.
        """
        self.wait()
        if self.save_dir and self.save_to_disk:
            self._write(name, self._collect(kwargs))

    def try_save(self, name: str, *, in_background: bool, **kwargs: Any) -> None:
        """As ``save``, for a run that goes on when a checkpoint cannot be written: the log says so.

        Args:
            name, kwargs: as for ``save``.
            in_background: return as soon as the state is copied to host memory, and write it in a thread. A checkpoint
                that is still being written is waited for first.
        """
        self.wait()
        if not self.save_dir or not self.save_to_disk:
            return
        data = self._collect(kwargs)
        if in_background:
            self._background.start(functools.partial(self._try_write, name, copy_to_host(data)))
        else:
            self._try_write(name, data)

    def try_out(self) -> None:
        """Write the present state once, under a name that goes again, so that ``write_seconds`` is known."""
        if self.save_dir and self.save_to_disk:
            path = os.path.join(self.save_dir, ".try_out.00000000.tmp")
            self._save(self._collect({}), path)
            os.unlink(path)

    def wait(self) -> None:
        """Return when no checkpoint is being written."""
        self._background.wait()

    def _collect(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        data = {"model": self.model.state_dict(), **entries}
        for name, part in (("optimizer", self.optimizer), ("scheduler", self.scheduler)):
            if part is not None:
                data[name] = part.state_dict()
        data.update(world_size=get_world_size(), config=self.config_text, format_version=FORMAT_VERSION)
        return data

    def _write(self, name: str, data: Mapping[str, Any]) -> None:
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        os.makedirs(self.save_dir, exist_ok=True)
        self._save(data, path)
        self.tag_last_checkpoint(path)
        remove_older(self.save_dir, path, self.keep, self.logger)

    def _save(self, data: Mapping[str, Any], path: str) -> None:
        begin = time.perf_counter()
        save_atomically(data, path)
        self.write_seconds = max(self.write_seconds, time.perf_counter() - begin)

    def _try_write(self, name: str, data: Mapping[str, Any]) -> None:
        try:
            self._write(name, data)
        except OSError as error:
            self.logger.error(
                "Checkpoint %s.pth cannot be written to %s (%s); the one before it stays the newest and training goes "
                "on: make room, or mend the folder, before the next one is due",
                name,
                self.save_dir,
                error.strerror or error,
            )

    def tag_last_checkpoint(self, last_filename: str) -> None:
        """Write into ``save_dir/last_checkpoint`` which file is the newest."""
        tag_newest(self.save_dir, last_filename)

    def has_checkpoint(self) -> bool:
        """Whether this run has saved before, as the first process sees it. All processes call it."""
        return broadcast(bool(self.get_checkpoint_file()))

    def get_checkpoint_file(self) -> str:
        """Path of the newest checkpoint; "" when there is none."""
        return newest_checkpoint(self.save_dir)

    def load(self, f: str | None = None) -> dict[str, Any]:
        """Go on from the newest checkpoint of ``save_dir``; without one, from ``f``, if given. All processes call it.

        On several nodes it is the first process that looks, and the others get what it finds.

        Optimizer and scheduler are restored where both sides have them. The newest checkpoint must be one of this very
        model; the tensors of ``f`` are matched by suffix (``load_weights`` takes the weights alone, and says what ``f``
        can be).

        Returns:
            What was saved beside model, optimizer and scheduler: iteration, scaler. Empty at a fresh start.

        Raises:
            FileNotFoundError: ``f`` does not exist.
            ValueError: no checkpoint can be read, or it is one of another model.
        """
        if self.has_checkpoint():
            path, data = self._read_newest()
            version = data.get("format_version", 0)
            if version > FORMAT_VERSION:
                raise ValueError(f"{path} has format version {version}, this program reads up to {FORMAT_VERSION}")
            load_whole(self.model, model_state(data, source=path), path)
            self.source = path
            self.logger.info("Loading checkpoint from %s", path)
        elif f:
            path, weights = self._read_given(f)
            self._fill(path, weights, strict=False)
            data = weights.extras
        else:
            self.logger.info("No checkpoint found, starting from the model's initial weights")
            return {}
        return self._restore_rest(path, data)

    def load_weights(self, f: str, *, strict: bool = False) -> LoadReport | None:
        """Take only the weights of a file, as the start of a new run; "" does nothing.

        Args:
            f: a path, an http(s) address or a ``catalog://`` name; a checkpoint or state dict of this program or the
                published ones, a Caffe2 or detectron2 pickle, or a torchvision state dict. What it is, is read from its
                content. All processes of a run must call this.
            strict: every tensor of the model must be in the file with its shape (evaluation).

        Raises:
            KeyError: the name is not in the catalogue.
            OSError, ValueError: the file cannot serve; the remedy is named.
        """
        if not f:
            return None
        return self._fill(*self._read_given(f), strict=strict)

    def _read_given(self, f: str) -> tuple[str, Weights]:
        """Read what the user named; an address is downloaded once."""
        place = self._resolve(f) if f.startswith(CATALOG_PREFIX) else f
        if place.startswith(("http://", "https://")):
            place = str(fetch(place, known=ModelCatalog.checksum(place)))
        path = os.path.expanduser(place)
        return path, read_any(path, self.model.state_dict())

    def _fill(self, path: str, weights: Weights, *, strict: bool) -> LoadReport:
        report = fill_from_weights(self.model, weights.state)
        wrong = report.mismatched + ([*report.left_out, *report.missing] if strict else [])
        if report.fault or wrong or not report.loaded:
            reason = report.fault or (shorten(wrong) if wrong else "none of its names is in the model")
            raise ValueError(f"{path} does not fit this model: {reason}")
        if weights.image_input is not None and self._image_input is not None:
            changes = weights.image_input.changes(self._image_input())
            if changes:
                self.logger.warning(
                    "%s was trained by %s with other images or strides than this config gives: set %s",
                    path,
                    weights.program,
                    changes,
                )
        self.logger.info("Weights from %s (%s): %s\n%s", path, weights.program, report.summary(), report.table())
        return report

    def _read_newest(self) -> tuple[str, dict[str, Any]]:
        if get_world_size() == get_local_world_size():
            return read_newest(self.save_dir, self.logger)
        # The folder of the other nodes need not be the same.
        found: Any = None
        if is_main_process():
            try:
                found = read_newest(self.save_dir, self.logger)
            except ValueError as error:
                found = error
        found = broadcast(found)
        if isinstance(found, ValueError):
            raise found
        return found

    def _restore_rest(self, path: str, data: dict[str, Any]) -> dict[str, Any]:
        if self.optimizer is not None and "optimizer" in data:
            trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            load_optimizer_state(self.optimizer, data["optimizer"], trainable)
        if self.scheduler is not None and "scheduler" in data:
            self.scheduler.load_state_dict(data["scheduler"])
        saved_by = data.get("world_size", get_world_size())
        if saved_by != get_world_size():
            self.logger.warning("%s was saved by %d processes, now there are %d", path, saved_by, get_world_size())
        return {key: value for key, value in data.items() if key not in OWN_KEYS}


class DetectronCheckpointer(Checkpointer):
    """Checkpointer of a run with a config, which it saves along.

    Args:
        cfg: the whole config.
        model, optimizer, scheduler, save_dir, save_to_disk, logger, keep: as for Checkpointer.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Any = None,
        save_dir: str = "",
        save_to_disk: bool | None = None,
        logger: logging.Logger | None = None,
        *,
        keep: int = 0,
    ) -> None:
        super().__init__(
            model,
            optimizer,
            scheduler,
            save_dir,
            save_to_disk,
            logger,
            keep=keep,
            config_text=cfg.dump(),
            resolve=functools.partial(resolve_model, cfg),
            image_input=functools.partial(ImageInput.from_config, cfg),
        )
