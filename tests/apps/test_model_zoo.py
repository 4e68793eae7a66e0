"""The page on published configs: complete, not stale, and counted as by hand."""

from __future__ import annotations

import gzip
import json
import math
import re
import shutil

import pytest
from torch._subclasses.fake_tensor import FakeTensorMode

from maskrcnn_benchmark.apps import model_zoo
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.config.paths_catalog import ModelCatalog
from maskrcnn_benchmark.modeling.detector import build_detection_model


@pytest.fixture(scope="module")
def folder(repository):
    return repository / "configs"


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs" / "model_zoo.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(page):
    """The cells of the table by the name of the config."""
    table = page.split(model_zoo.BEGIN)[1].split(model_zoo.END)[0].strip().splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {re.search(r"\((?:\.\./)configs/(.+)\)", cell[0]).group(1): cell for cell in cells}


def test_every_published_config_has_a_row(rows, folder, repository):
    published = json.loads((repository / "tests" / "config" / "data" / "config_files.json").read_text(encoding="utf-8"))
    assert list(rows) == model_zoo.published_names(folder)
    assert set(rows) == set(published)


def test_figures_and_weights_are_those_of_the_files(rows, folder):
    for name, cells in rows.items():
        config = cfg.clone()
        config.merge_from_file(folder / name)
        assert cells[4] == model_zoo.expected_figures((folder / name).read_text(encoding="utf-8")), name
        assert cells[5] == (f"`{config.MODEL.WEIGHT}`" if config.MODEL.WEIGHT else "random weights"), name
        assert cells[3] == "x".join(map(str, model_zoo.make_size(config))), name


@pytest.mark.parametrize(
    "name",
    ["e2e_mask_rcnn_R_50_FPN_1x.yaml", "e2e_mask_rcnn_fbnet.yaml", "quick_schedules/rpn_R_50_C4_quick.yaml"],
)
def test_counts_are_not_stale(page, folder, name):
    assert f"\n{model_zoo.make_row(cfg, folder, name)}\n" in page, "run python tools/model_zoo.py"


@pytest.mark.parametrize(
    "name", ["e2e_mask_rcnn_R_50_FPN_1x.yaml", "e2e_mask_rcnn_X_101_32x8d_FPN_1x.yaml", "rpn_R_50_C4_1x.yaml"]
)
def test_parameters_equal_the_published_shapes(rows, repository, name):
    published = json.loads(gzip.decompress((repository / "tests" / "contract" / "state_dicts.json.gz").read_bytes()))
    shapes = published["dicts"][published["configs"][name]]
    frozen = re.compile(r"\.bn\d\.|\.downsample\.1\.|anchor")
    count = sum(math.prod(shape) for key, shape in shapes.items() if not frozen.search(key))
    assert rows[name][1] == f"{count / 1e6:.2f}"


def test_operations_by_hand(folder):
    config = cfg.clone()
    config.merge_from_file(folder / "e2e_mask_rcnn_R_50_FPN_1x.yaml")
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build_detection_model(config).eval()
        counts = model_zoo.count_flops(model, (800, 1344))
    assert list(counts) == ["trunk", "box", "mask"]
    # 1000 proposals through 12544 -> 1024 -> 1024 -> 81 + 324
    assert counts["box"] == 2 * 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 4 * 81))
    # 100 regions: four 3x3 convolutions at 14x14, one 2x2 upwards, 81 masks at 28x28
    assert counts["mask"] == 2 * 100 * (4 * 9 * 256**2 * 14**2 + 4 * 256**2 * 14**2 + 256 * 81 * 28**2)
    # the trunk: res2 to res5, the pyramid and the RPN head, of which the latter two follow from the sizes of the levels
    pixels = [200 * 336, 100 * 168, 50 * 84, 25 * 42, 13 * 21]
    pyramid = sum(p * c * 256 for p, c in zip(pixels, (256, 512, 1024, 2048), strict=False)) + 9 * 256**2 * sum(
        pixels[:4]
    )
    rpn_head = sum(pixels) * (9 * 256**2 + 256 * 15)
    assert 140e9 < counts["trunk"] - 2 * (pyramid + rpn_head) < 185e9  # a ResNet-50 takes 4.1 GMAC at 224x224


def test_every_name_of_the_catalogue_is_on_the_page(page):
    assert [name for name in ModelCatalog.names() if f"`{name}`" not in page] == []


def test_the_tool_replaces_the_table_alone(folder, tmp_path, capsys):
    (tmp_path / "configs").mkdir()
    shutil.copy(folder / "e2e_faster_rcnn_fbnet.yaml", tmp_path / "configs")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{model_zoo.BEGIN}\nold\n{model_zoo.END}\nafter\n")

    def run(*words):
        args = model_zoo.make_parser().parse_args(["--configs", str(tmp_path / "configs"), *words])
        model_zoo.main(args, cfg)

    run("--page", str(page))
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("before", "after", 7)
    assert lines[4].startswith("| [e2e_faster_rcnn_fbnet](../configs/e2e_faster_rcnn_fbnet.yaml) | 2.13 |")
    run("--only", "e2e_faster_rcnn_fbnet.yaml")
    assert capsys.readouterr().out.startswith(lines[4] + "\nGFLOP: trunk ")
    page.write_text("no table")
    with pytest.raises(ValueError, match=r"page\.md has no lines <!-- begin"):
        run("--page", str(page))
