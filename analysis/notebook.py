"""Shows figures and tables in Jupyter, Colab, VS Code and GitHub, and exports them."""

from __future__ import annotations

import base64
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert

from analysis.figures.every import figures
from analysis.figures.parts import Figure
from analysis.figures.style import THEMES
from analysis.figures.vega_lite import MAJOR_VERSION, Spec
from analysis.load import Study
from analysis.report.rendering import render
from analysis.tables.every import TABLES
from analysis.tables.table import Table
from study.records.layout import is_file

WIDTH = 720  # pixels
VEGALITE = f"application/vnd.vegalite.v{MAJOR_VERSION}+json"
NOTHING = "The study has nothing to show here yet."


class Shown:
    """One thing on a page: every front end takes the richest form that it knows."""

    def __init__(self) -> None:
        self._forms: dict[str, Any] = {}

    def add(self, kind: str, value: Any) -> Shown:
        """Adds a form by its MIME type."""
        self._forms[kind] = value
        return self

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        return dict(self._forms)


def show_figure(study: Study, name: str) -> Shown:
    """A figure by its name (front, curves, memory): interactive where Vega is drawn, else a PNG; with its caption."""
    figure = figures(study, WIDTH).get(name)
    if figure is None:
        return Shown().add("text/plain", NOTHING)
    shown = Shown().add("text/plain", f"{figure.title}\n{figure.caption}")
    return shown.add(VEGALITE, _specification(figure)).add("image/png", _png(figure))


def caption(study: Study, name: str) -> Shown:
    """What to see in a figure, in words."""
    figure = figures(study, WIDTH).get(name)
    text = NOTHING if figure is None else figure.caption
    return Shown().add("text/markdown", f"*{text}*").add("text/plain", text)


def show_table(table: Table | None) -> Shown:
    """A table with its caption."""
    if table is None:
        return Shown().add("text/plain", NOTHING)
    html = str(render("notebook_table.html", table=table))
    return Shown().add("text/html", html).add("text/plain", f"{table.title}\n{table.to_csv()}")


def figure_table(study: Study, name: str) -> Shown:
    """The numbers behind a figure."""
    figure = figures(study, WIDTH).get(name)
    return show_table(None if figure is None else _numbers(figure))


def export_everything(study: Study, folder: Path | str) -> list[Path]:
    """Writes figures as PNG and SVG, tables and the numbers behind the figures as CSV; returns the files.

    Beside each figure stands its Vega-Lite specification (`.vl.json`): where that has not changed since, the figure is
    not drawn again.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures(study, WIDTH).items():
        written += _export_figure(_specification(figure), folder, name)
        written.append(_write(folder / f"{name}.csv", _numbers(figure).to_csv()))
    tables = ((name, make(study)) for name, make in TABLES.items())
    written += [_write(folder / f"{name}.csv", table.to_csv()) for name, table in tables if table is not None]
    return written


def _export_figure(specification: Spec, folder: Path, name: str) -> list[Path]:
    drawn_by = {"usermeta": {"drawn_by": f"vl-convert-python {version('vl-convert-python')}"}}
    text = json.dumps({**specification, **drawn_by}, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    png, svg, source = (folder / f"{name}.{kind}" for kind in ("png", "svg", "vl.json"))
    if not (_holds(source, text) and png.exists() and svg.exists()):
        source.unlink(missing_ok=True)  # it comes last: what is broken off is drawn again
        _write(png, vl_convert.vegalite_to_png(specification, scale=2))
        _write(svg, vl_convert.vegalite_to_svg(specification))
        _write(source, text)
    return [png, svg, source]


def _holds(file: Path, text: str) -> bool:
    return is_file(file) and file.read_bytes() == text.encode("utf-8", "replace")


def _numbers(figure: Figure) -> Table:
    return Table(figure.name, f"The numbers behind: {figure.title}", "", figure.headings, figure.rows)


def _specification(figure: Figure) -> Spec:
    # On paper of its own: a notebook, or GitHub, in dark colours would show the light theme's letters on black.
    return {**figure.chart, "config": {**THEMES["light"], "background": "white"}}


def _png(figure: Figure) -> str:
    content: bytes = vl_convert.vegalite_to_png(_specification(figure))
    return base64.b64encode(content).decode("ascii")


def _write(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)
    return file
