"""Charts as inline SVG: they follow the page's colours, need no network, and carry their figures as a table.

A chart is measured in units of its own, 640 wide; the page scales it, and makes the letters larger on small screens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from markupsafe import Markup

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 10, 52
MOST_TABLE_ROWS = 60

_numbers = count(1)


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        name: for legend and table.
        xs, ys: points, by ascending x; ys that are not finite leave a gap.
        dashed: drawn as a comparison.
        colour: number of the page's colour, 1 to 6; 0: by its place in the chart.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    dashed: bool = False
    colour: int = 0


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
) -> Markup:
    """Lines over a common x, with a legend, a cursor that arrow keys move, and a table.

    Args:
        title: what is shown.
        series: at least one with a finite point, otherwise the chart is a sentence.
        x_label, y_label: with their units.
        log_y: logarithmic y; values that are not positive are left out.
        y_range: of the axis; None: that of the values, from 0 where they are positive and not logarithmic.
        x_range: of the axis; None: that of the values.
    """
    series = [line for line in map(_finite, series) if line.xs]
    if log_y:
        series = [line for line in (_positive(line) for line in series) if line.xs]
    if not series:
        return Markup('<figure class="chart"><figcaption>{}</figcaption><p>No figures.</p></figure>').format(title)
    series = [_coloured(line, index) for index, line in enumerate(series)]
    x_axis = _Axis.of(list(x_range) if x_range else [x for line in series for x in line.xs], LEFT, WIDTH - RIGHT)
    ys = [y for line in series for y in line.ys]
    if y_range is None and not log_y and min(ys) >= 0:
        ys = [*ys, 0.0]
    y_axis = _Axis.of(list(y_range) if y_range else ys, HEIGHT - BOTTOM, TOP, log=log_y)
    parts = [*_grid(x_axis, y_axis), *_labels(x_label, y_label)]
    parts += [_path(line, x_axis, y_axis) for line in series]
    parts.append(Markup('<g class="cursor" hidden><line y1="{}" y2="{}"/></g>').format(TOP, HEIGHT - BOTTOM))
    data = [
        {
            "name": line.name,
            "colour": line.colour,
            "points": [[round(x_axis(x), 1), round(y_axis(y), 1), x, y] for x, y in zip(line.xs, line.ys, strict=True)],
        }
        for line in series
    ]
    legend = Markup("").join(
        Markup('<span class="key c{}{}">{}</span>').format(line.colour, " dashed" if line.dashed else "", line.name)
        for line in series
    )
    table = _table([x_label, *(line.name for line in series)], _rows(series))
    return _figure(title, parts, HEIGHT, legend=legend, data=json.dumps(data), table=table, described=y_label)


def bar_chart(title: str, bars: Sequence[tuple[str, float]], *, x_label: str, limit: float | None = None) -> Markup:
    """Horizontal bars with their figures beside them.

    Args:
        title: what is shown.
        bars: (name, value of at least 0).
        x_label: what the figures are.
        limit: the value of a bar over the whole width; None: the largest one.
    """
    limit = limit or max((value for _, value in bars), default=0) or 1.0
    rows = Markup("").join(
        Markup(
            '<dt>{}</dt><dd><span class="track"><span class="bar" style="width: {:.2f}%"></span></span>'
            '<span class="figure" data-value="{!r}">{}</span></dd>'
        ).format(name, 100 * min(value / limit, 1.0), float(value), number(value))
        for name, value in bars
    )
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption><p class="legend">{}</p><dl class="bars">{}</dl></figure>'
    ).format(title, x_label, rows)


def number(value: float) -> str:
    """A figure for people: four significant digits, thousands apart."""
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10000 else f"{value:.4g}"


@dataclass(frozen=True)
class _Axis:
    """From values to places in the picture."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    @classmethod
    def of(cls, values: Sequence[float], begin: float, end: float, *, log: bool = False) -> _Axis:
        low, high = min(values), max(values)
        if log:
            low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
        if low == high:
            low, high = (low / 10, high * 10) if log else (low - 0.5, high + 0.5)
        return cls(low, high, begin, end, log)

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            step = max(1, (last - first) // 5)
            return [10.0**power for power in range(first, last + 1, step)]
        rough = (self.high - self.low) / 5
        unit = 10 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _finite(line: Series) -> Series:
    points = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    return Series(line.name, [x for x, _ in points], [y for _, y in points], line.dashed, line.colour)


def _positive(line: Series) -> Series:
    points = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if y > 0]
    return Series(line.name, [x for x, _ in points], [y for _, y in points], line.dashed, line.colour)


def _coloured(line: Series, index: int) -> Series:
    return Series(line.name, line.xs, line.ys, line.dashed, line.colour or index % 6 + 1)


def _grid(x_axis: _Axis, y_axis: _Axis) -> list[Markup]:
    parts = []
    for tick in y_axis.ticks():
        y = y_axis(tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        )
        parts.append(Markup('<text class="end" x="{}" y="{:.1f}">{}</text>').format(LEFT - 6, y + 4, number(tick)))
    for index, tick in enumerate(x_axis.ticks()):
        parts.append(
            Markup('<text class="middle{}" x="{:.1f}" y="{}">{}</text>').format(
                " minor" if index % 2 else "", x_axis(tick), HEIGHT - BOTTOM + 20, number(tick)
            )
        )
    return parts


def _labels(x_label: str, y_label: str) -> list[Markup]:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return [
        Markup('<text class="axis middle" x="{}" y="{}">{}</text>').format((LEFT + WIDTH) / 2, HEIGHT - 6, x_label),
        Markup('<text class="axis middle" transform="rotate(-90 12 {0})" x="12" y="{0}">{1}</text>').format(
            middle, y_label
        ),
    ]


def _path(line: Series, x_axis: _Axis, y_axis: _Axis) -> Markup:
    points = [(x_axis(x), y_axis(min(max(y, y_axis.low), y_axis.high))) for x, y in zip(line.xs, line.ys, strict=True)]
    if len(points) == 1:
        return Markup('<circle class="c{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(line.colour, *points[0])
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = " dashed" if line.dashed else ""
    return Markup('<polyline class="c{}{}" points="{}"/>').format(line.colour, dashed, steps)


def _rows(series: Sequence[Series]) -> list[tuple[float | None, ...]]:
    xs = sorted({x for line in series for x in line.xs})
    if len(xs) > MOST_TABLE_ROWS:  # evenly spread, the last one among them
        xs = [xs[round(index * (len(xs) - 1) / (MOST_TABLE_ROWS - 1))] for index in range(MOST_TABLE_ROWS)]
    known = [dict(zip(line.xs, line.ys, strict=True)) for line in series]
    return [(x, *(values.get(x) for values in known)) for x in xs]


def _table(head: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> Markup:
    def cell(value: str | float | None) -> Markup:
        if value is None:
            return Markup("<td></td>")
        if isinstance(value, str):
            return Markup('<th scope="row">{}</th>').format(value)
        return Markup('<td data-value="{!r}">{}</td>').format(float(value), number(value))

    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in head)
    body = Markup("").join(Markup("<tr>{}</tr>").format(Markup("").join(map(cell, row))) for row in rows)
    return Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        heads, body
    )


def _figure(
    title: str,
    parts: Sequence[Markup],
    height: float,
    *,
    table: Markup,
    described: str,
    legend: Markup | None = None,
    data: str = "",
) -> Markup:
    identity = f"chart{next(_numbers)}"
    focus = Markup(' tabindex="0" data-series="{}"').format(data) if data else Markup("")
    return Markup(
        '<figure class="chart"><figcaption id="{id}">{title}</figcaption><div class="legend">{legend}</div>'
        '<div class="plot"{focus}><svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{id}">'
        "<desc>{described}</desc>{parts}</svg>"
        '<output class="value" aria-live="polite"></output></div>'
        "<details><summary>Figures</summary>{table}</details></figure>"
    ).format(
        id=identity,
        title=title,
        legend=legend or "",
        focus=focus,
        width=WIDTH,
        height=height,
        described=described,
        parts=Markup("").join(parts),
        table=table,
    )
