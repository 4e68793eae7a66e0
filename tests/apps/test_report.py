"""Reports: the page stands alone, its figures are those of the run's files, and people can use it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn_benchmark.apps.report import compare, report, training
from maskrcnn_benchmark.apps.report.charts import Series, bar_chart, line_chart, number
from maskrcnn_benchmark.apps.report.run_folder import RunFolder
from maskrcnn_benchmark.apps.report.settings import config_difference
from maskrcnn_benchmark.apps.report.training import progress_chart
from tests.apps.browser import needs_browser, open_page

SERIES = re.compile(r'data-series="([^"]*)"')

pytest_plugins = ("tests.apps.tiny_run",)


class Parsed(HTMLParser):
    """Ids, addresses, exact values and chart data of a page; unclosed elements are faults."""

    VOID = frozenset({"meta", "link", "img", "br", "line", "circle", "rect", "polyline"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.addresses, self.values, self.series, self.words = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("src", "href", "action", "data") if found.get(name)]
        self.values += [float(found["data-value"])] if "data-value" in found else []
        self.series += [json.loads(found["data-series"])] if "data-series" in found else []

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data.strip())


@pytest.fixture
def run_folder(tiny_run) -> Path:
    tiny_run.train(keys={"SOLVER.TEST_PERIOD": 2, "REPORT": True})
    return tiny_run.output


def test_a_run_ends_with_its_report(run_folder: Path) -> None:
    text = (run_folder / "report.html").read_text()
    page = Parsed(text)
    for section in ("result", "training", "data", "config", "manifest"):
        assert section in page.ids
    assert len(page.ids) == len(set(page.ids))
    outside = [a for a in page.addresses if not a.startswith(("#", "data:"))]
    assert outside == []
    assert "@import" not in text
    assert "url(" not in text


def test_every_point_of_the_curves_is_in_the_log(run_folder: Path) -> None:
    page = Parsed((run_folder / "report.html").read_text())
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    steps = {line["iteration"]: line for line in lines if line["iteration"] is not None}
    drawn = {line["name"]: line["points"] for chart in page.series for line in chart}
    for name in ("loss", "loss_mask", "loss_rpn_box_reg"):
        assert [(x, y) for _, _, x, y in drawn[name]] == [
            (i, line[name]) for i, line in steps.items() if line[name] > 0
        ]
    assert [(x, y) for _, _, x, y in drawn["learning rate"]] == [
        (i, line["learning_rate"]) for i, line in steps.items()
    ]
    assert [y for *_, y in drawn["images/s"]] == [2 / line["time"] for line in steps.values()]
    assert [y for *_, y in drawn["memory"]] == [line["memory"] for line in steps.values()]
    evaluations = [json.loads(line) for line in (run_folder / "evaluations.jsonl").read_text().splitlines()]
    own = {line["iteration"]: line["figures"]["bbox"]["AP"] for line in evaluations}
    assert {x: y for _, _, x, y in drawn["boxes, this run"]}.items() >= own.items()


def test_every_figure_is_in_the_files(run_folder: Path) -> None:
    """The tiny network finds nothing, so each figure gets a value of its own first."""
    (path,) = run_folder.glob("inference/*/evaluation.json")
    content, random = json.loads(path.read_text()), np.random.default_rng(0)
    for task in ("bbox", "segm"):
        content["figures"][task] = {name: random.random() for name in content["figures"][task]}
        for entry in content["tasks"][task]["classes"]:
            entry.update({name: random.random() for name in ("AP", "AP50", "APs", "AR100")})
    path.write_text(json.dumps(content))
    page = Parsed(report.write_report(run_folder).read_text())
    total = json.loads((run_folder / "metrics.jsonl").read_text().splitlines()[-1])
    expected = [total["e2e_train_time"], total["train_perf_fps"]]
    for task in ("bbox", "segm"):
        expected += content["figures"][task].values()
        expected += [
            entry[name] for entry in content["tasks"][task]["classes"] for name in ("AP", "AP50", "APs", "AR100")
        ]
    assert len(set(expected)) == 2 + 2 * 12 + 2 * 3 * 4
    assert set(expected) <= set(page.values)


def test_names_cannot_break_the_page(run_folder: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    (path,) = run_folder.glob("inference/*/evaluation.json")
    content = json.loads(path.read_text())
    for task in content["tasks"].values():
        for entry in task["classes"]:
            entry["name"] = evil
    path.write_text(json.dumps(content))
    text = report.write_report(run_folder).read_text()
    assert "<script>alert" not in text
    assert html.escape(evil, quote=False) in text or "&lt;script&gt;alert(1)" in text
    Parsed(text)


def test_missing_and_damaged_files_are_named(run_folder: Path, tmp_path: Path) -> None:
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 99, "lo')
    (run_folder / "config.yml").unlink()
    (run_folder / "manifest.json").write_text("{")
    words = " ".join(Parsed(report.write_report(run_folder, with_data=False).read_text()).words)
    for part in ("metrics.jsonl has 1 damaged line", "config.yml is missing", "manifest.json is damaged"):
        assert part in words
    with pytest.raises(FileNotFoundError, match="does not exist"):
        RunFolder.read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        RunFolder.read(tmp_path / "empty")


def test_nothing_about_a_report_ends_a_run(tiny_run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "render_report", fail)
    tiny_run.train("--skip-test", keys={"REPORT": True})
    assert (tiny_run.output / "model_final.pth").is_file()
    assert "no ink" in (tiny_run.output / "log.txt").read_text()


def test_the_nearest_published_config_is_found(repository: Path, run_folder: Path) -> None:
    difference = config_difference(RunFolder.read(run_folder))
    assert difference.nearest == "demo/mask_rcnn_R_18_FPN_shapes.yaml"
    changed = {key: (published, own) for key, published, own in difference.rows}
    assert changed["SOLVER.MAX_ITER"] == ("3000", "4")
    assert "MODEL.ROI_HEADS.USE_FPN" not in changed
    assert "OUTPUT_DIR" not in changed


def test_public_curves_stand_beside_a_run_on_coco(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("DATASETS:\n  TEST: [coco_2017_val]\n")
    lines = [{"iteration": iteration, "epoch": iteration // 100, "loss": 1.0} for iteration in range(20, 401, 20)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    points = [{"iteration": 100 * n, "figures": {"bbox": {"AP": n / 10}, "segm": {"AP": n / 20}}} for n in (1, 2, 4)]
    (tmp_path / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in points))
    chart = str(progress_chart(RunFolder.read(tmp_path)))
    drawn = {line["name"]: line["points"] for line in json.loads(html.unescape(re.search(SERIES, chart)[1]))}
    assert [(x, y) for _, _, x, y in drawn["boxes, this run"]] == [(1.0, 0.1), (2.0, 0.2), (4.0, 0.4)]
    assert len([name for name in drawn if "MLPerf" in name]) == 4
    (tmp_path / "config.yml").write_text("DATASETS:\n  TEST: [my_own]\n")
    assert "MLPerf" not in progress_chart(RunFolder.read(tmp_path))


def test_public_curves_are_those_of_the_logs(external_data: Callable[[str], Path]) -> None:
    curves = json.loads((Path(training.__file__).parent / "mlperf_curves.json").read_text())
    logs = ("v0.7_nvidia_dgxa100_result_0.txt", "v3.1_nvidia_eos_8xH100_result_0.txt")
    for curve, log in zip(curves, logs, strict=True):
        text = (external_data("mlperf_maskrcnn_logs") / log).read_text(errors="replace")
        found = re.findall(r'"eval_accuracy", "value": \{"BBOX": ([\d.]+), "SEGM": ([\d.]+)\}', text)
        assert curve["bbox"] == [round(float(bbox), 4) for bbox, _ in found]
        assert curve["segm"] == [round(float(segm), 4) for _, segm in found]
        assert curve["epochs"] == list(range(1, len(found) + 1))


def test_runs_side_by_side(run_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("metrics.jsonl", "config.yml"):
        (other / name).write_text((run_folder / name).read_text())
    config = (other / "config.yml").read_text()
    (other / "config.yml").write_text(re.sub(r"BASE_LR: .*", "BASE_LR: 0.25", config))
    page = Parsed(compare.render_comparison([RunFolder.read(run_folder), RunFolder.read(other)]))
    assert "SOLVER.BASE_LR" in page.words
    assert "0.25" in page.words
    assert "SOLVER.MAX_ITER" not in page.words
    names = {line["name"] for chart in page.series for line in chart}
    assert names == {run_folder.name, "other"}
    with pytest.raises(ValueError, match="two or more"):
        compare.render_comparison([RunFolder.read(run_folder)])


def test_places_in_a_chart_are_proportional() -> None:
    chart = str(line_chart("t", [Series("a", [0, 5, 10], [1.0, 2.0, 3.0])], x_label="x", y_label="y"))
    (series,) = json.loads(html.unescape(re.search(SERIES, chart)[1]))
    (x0, y0, *_), (x1, y1, *_), (x2, y2, *_) = series["points"]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert y0 > y1  # upwards
    logarithmic = str(line_chart("t", [Series("a", [0, 1, 2], [0.1, 1, 10])], x_label="x", y_label="y", log_y=True))
    (series,) = json.loads(html.unescape(re.search(SERIES, logarithmic)[1]))
    heights = [point[1] for point in series["points"]]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


def test_charts_of_odd_figures() -> None:
    nan = float("nan")
    assert "No figures" in line_chart("t", [Series("a", [1, 2], [nan, nan])], x_label="x", y_label="y")
    assert "No figures" in line_chart("t", [Series("a", [1], [-1.0])], x_label="x", y_label="y", log_y=True)
    assert "<circle" in line_chart("t", [Series("a", [3], [2.0])], x_label="x", y_label="y")
    assert "width: 0.00%" in bar_chart("t", [("none", 0)], x_label="objects")
    assert [number(value) for value in (0.123456, 3000, 12345.6, nan)] == ["0.1235", "3,000", "12,346", "–"]


@needs_browser
@pytest.mark.extras
@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True)], ids=["desktop", "phone"])
def test_in_a_browser(run_folder: Path, width: int, mobile: bool) -> None:
    with open_page(run_folder / "report.html", width=width, height=900, mobile=mobile) as page:
        light = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        # by keyboard alone, along a chart
        page.run("document.querySelector('#training .plot[data-series]').focus()")
        said = []
        for _ in range(3):
            page.press("\ue014")  # arrow right
            said.append(page.run("return document.activeElement.querySelector('output').textContent"))
        assert len(set(said)) == 3
        assert all(re.match(r"\d+: ", text) for text in said)
        controls = "[...document.querySelectorAll('nav a, button, summary, .plot[data-series]')]"
        assert page.run(f"return {controls}.every(e => e.tabIndex >= 0)")
        page.colour_scheme("dark")
        dark = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        page.run("document.getElementById('theme').click()")
        again = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        assert light.mean() > 180
        assert dark.mean() < 90
        assert again.mean() > 180
        assert [entry for entry in page.console() if entry["level"] in ("SEVERE", "WARNING")] == []
