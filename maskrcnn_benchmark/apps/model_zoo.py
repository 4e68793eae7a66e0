"""The published configs in a table: size of each network, its operations, its figures, the weights it takes."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.options.model_zoo import make_parser as make_parser
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.image_list import ImageList, padded_size

BEGIN, END = "<!-- begin: tools/model_zoo.py -->", "<!-- end -->"
OWN = ("demo", "penn_fudan", "parking_2022.yaml")  # not published by others
_COLUMNS = ("config", "parameters, M", "GFLOP", "input", "published figures", "starts from")


@dataclass(frozen=True)
class Row:
    """One config.

    Attributes:
        parameters: numbers in the network, frozen ones too; what a frozen batch norm holds is not counted.
        flops: of one image, see `count_flops`.
        size: (height, width) of that image with its padding.
        figures: what the file expects, and who published it.
        weight: MODEL.WEIGHT.
    """

    name: str
    parameters: int
    flops: dict[str, int]
    size: tuple[int, int]
    figures: str
    weight: str

    def __str__(self) -> str:
        cells = (
            f"[{self.name.removesuffix('.yaml')}](../configs/{self.name})",
            f"{self.parameters / 1e6:.2f}",
            f"{sum(self.flops.values()) / 1e9:.1f}",
            f"{self.size[0]}x{self.size[1]}",
            self.figures,
            f"`{self.weight}`" if self.weight else "random weights",
        )
        return f"| {' | '.join(cells)} |"


def make_row(cfg: CfgNode, folder: Path, name: str) -> Row:
    """Describe a config file.

    Args:
        cfg: the defaults; stays as it is.
        folder: of the config files.
        name: of one, relative to the folder.
    """
    cfg = cfg.clone()
    cfg.merge_from_file(folder / name)
    size = make_size(cfg)
    with FakeTensorMode(allow_non_fake_inputs=True):  # shapes, but no memory and no work
        model = build_detection_model(cfg).eval()
        flops = count_flops(model, size, num_detections=cfg.MODEL.ROI_HEADS.DETECTIONS_PER_IMG)
    return Row(
        name,
        sum(parameter.numel() for parameter in model.parameters()),
        flops,
        size,
        expected_figures((folder / name).read_text(encoding="utf-8")),
        cfg.MODEL.WEIGHT,
    )


def make_size(cfg: CfgNode) -> tuple[int, int]:
    """The padded size of a picture of 5:3, which with the published 800 and 1333 pixels is 800x1344."""
    shorter, longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    return padded_size([(shorter, min(round(shorter * 5 / 3), longest))], cfg.DATALOADER.SIZE_DIVISIBILITY)


def expected_figures(text: str) -> str:
    """What the comment above a config says after ``Expected:``, without the full stop."""
    found = re.search(r"^# Expected: (.+)$", text, re.MULTILINE)
    return found.group(1).removesuffix(".") if found else "no published figure"


@torch.no_grad()
def count_flops(model: Any, size: tuple[int, int], *, num_detections: int = 100) -> dict[str, int]:
    """Operations of detecting in one image, a multiplication and an addition being two.

    Convolutions, matrix products and deformable convolutions count. The box head sees as many proposals as there can
    be, the heads behind it as many detections.

    Args:
        model: in the form of `build_detection_model`, in evaluation mode; of fake tensors, it computes nothing.
        size: (height, width) of the image.
        num_detections: of the image.

    Returns:
        {"trunk", "box", and the names of the further heads}; the trunk is backbone, pyramid and dense head.
    """
    counts: dict[str, int] = {}
    with FlopCounterMode(display=False) as counter:

        def record(name: str) -> None:
            counts[name] = counter.get_total_flops() - sum(counts.values())

        images = ImageList(torch.empty(1, 3, *size), [size])
        features = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, features)
        record("trunk")
        if model.roi_heads is not None:
            model.roi_heads.box.candidates(features, proposals, images.sizes)
            record("box")
            regions = torch.empty(num_detections, 5)
            for name, head in model.roi_heads.further_heads().items():
                head.predictor(head.feature_extractor(features, regions))
                record(name)
    return counts


def published_names(folder: Path) -> list[str]:
    """The config files that others published, relative to their folder, those of one folder together."""
    names = (path.relative_to(folder) for path in folder.rglob("*.yaml"))
    return [str(name) for name in sorted(names, key=lambda n: (n.parent, n)) if name.parts[0] not in OWN]


def make_table(cfg: CfgNode, folder: Path) -> str:
    """The rows of all published configs as Markdown."""
    rows = [str(make_row(cfg, folder, name)) for name in published_names(folder)]
    return "\n".join((f"| {' | '.join(_COLUMNS)} |", "| --- | ---: | ---: | --- | --- | --- |", *rows))


def main(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Run the program.

    Args:
        args: parsed options of ``make_parser``.
        cfg: the config tree with its defaults; stays as it is.

    Raises:
        ValueError: the page has no place for the table.
    """
    folder, page = Path(args.configs), Path(args.page)
    if args.only:
        row = make_row(cfg, folder, args.only)
        parts = ", ".join(f"{name} {flops / 1e9:.1f}" for name, flops in row.flops.items())
        sys.stdout.write(f"{row}\nGFLOP: {parts}\n")
        return
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page} has no lines {BEGIN} and {END} around its table")
    before, rest = text.split(BEGIN, 1)
    page.write_text(f"{before}{BEGIN}\n{make_table(cfg, folder)}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")
