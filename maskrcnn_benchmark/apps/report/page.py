"""One self-contained HTML page: style, script, charts and pictures are inside it, and it asks for nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from maskrcnn_benchmark.apps.report.charts import number

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Tile:
    """One figure at the head of a page.

    Attributes:
        label: what it is.
        value: as people read it.
        exact: the number behind it; None where it is a word.
        note: further, in small letters.
    """

    label: str
    value: str
    exact: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page with an entry in its navigation."""

    id: str
    title: str
    body: Markup


def render_page(
    *,
    title: str,
    heading: str,
    subtitle: str,
    tiles: Sequence[Tile],
    notes: Sequence[str],
    sections: Sequence[Section],
    footer: str,
) -> str:
    """The whole page as text; every string is escaped but the sections' bodies."""
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            heading=heading,
            subtitle=subtitle,
            tiles=tiles,
            notes=notes,
            sections=[section for section in sections if section.body],
            footer=footer,
            style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
            script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        )
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str = "", words: bool = False) -> Markup:
    """A table whose first column heads its rows; numbers carry their exact value in ``data-value``."""
    content = Markup(_part("table")(head, rows, caption))
    return Markup('<div class="words">{}</div>').format(content) if words else content


def more(summary: str, content: Markup) -> Markup:
    """Content that is opened by a click or the Enter key."""
    return Markup(_part("more")(summary, content))


def pictures(items: Sequence[Mapping[str, Any]]) -> Markup:
    """Pairs of pictures, annotated and found; see ``pictures.picture_pairs``."""
    return Markup(_part("pictures")(items))


def matrix(names: Sequence[str], rows: Sequence[Mapping[str, Any]], *, caption: str) -> Markup:
    """A table of counts, each cell coloured by its share of the row; rows are {name, cells: [{count, share}]}."""
    return Markup(_part("matrix")(names, rows, caption))


def charts(items: Sequence[Markup]) -> Markup:
    """Charts beside one another where there is room."""
    return Markup('<div class="charts">{}</div>').format(Markup("").join(items)) if items else Markup("")


def _part(name: str) -> Any:
    return getattr(_environment().get_template("parts.html").module, name)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(repr=repr, short=number)
    return environment
