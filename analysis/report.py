"""The report of a study: one HTML page that needs no network, and the front as JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import altair as alt
import vl_convert

from analysis import report_sections as sections
from analysis.figure_style import THEMES
from analysis.load import Study, load_study
from analysis.pareto import front, front_document
from analysis.plots import curve_points, curves_chart, front_chart, front_points
from analysis.report_html import escape, script_json
from analysis.wording import count_statuses, headline

REPORT_FILE = "report.html"
FRONT_FILE = "pareto.json"
TEMPLATE = Path(__file__).with_name("report_template.html")
STATIC_WIDTH = 760  # pixels, of a figure without JavaScript


def write_report(directory: Path | str) -> Path:
    """Writes `report.html` and `pareto.json` into a study directory, each whole or not at all.

    Returns the report's path. It may be called at any moment of a study, also before any trial has ended. Raises
    StudyDirectoryError where the directory cannot be read.
    """
    study = load_study(directory)
    document = front_document(study.records, study.objectives)
    _write_whole(study.directory / FRONT_FILE, json.dumps(document, indent=2, allow_nan=False) + "\n")
    report = study.directory / REPORT_FILE
    _write_whole(report, report_page(study))
    return report


def report_page(study: Study) -> str:
    """The whole page; every text of a model, a file or an error is escaped in it."""
    charts = _charts(study)
    bundle = _javascript() if charts else None
    members = front(study.records, study.objectives)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(study.name),
        counts=escape(count_statuses(study.records)),
        headline=escape(headline(study)),
        notices=sections.notices(study),
        front_figure=_figure("front", charts, bundle, "No complete trial has all objectives yet: no figure to draw."),
        front_table=sections.front_table(study, members),
        trials_table=sections.trials_table(study, members),
        curves_figure=_figure("curves", charts, bundle, "No evaluation was recorded while training."),
        samples=sections.samples(members),
        provenance=sections.provenance(study),
        bundle=bundle or "",
        themes=script_json(THEMES),
    )


def _charts(study: Study) -> dict[str, alt.LayerChart]:
    charts = {}
    if front_points(study):
        charts["front"] = front_chart(study)
    if curve_points(study):
        charts["curves"] = curves_chart(study)
    return charts


def _javascript() -> str | None:
    """Vega, Vega-Lite and its embedder as one script; None where this vl_convert has none to give."""
    make = getattr(vl_convert, "javascript_bundle", None)
    # In a script element only its own end tag ends it, and a comment's start confuses it.
    return make().replace("</script", "<\\/script").replace("<!--", "<\\!--") if make else None


def _figure(name: str, charts: Mapping[str, alt.LayerChart], bundle: str | None, otherwise: str) -> str:
    if name not in charts:
        return f'<p class="quiet">{escape(otherwise)}</p>'
    if bundle is None:
        return f'<div class="figure">{_svg(charts[name])}</div>'
    spec = script_json(charts[name].to_dict())
    data = f'<script type="application/json" data-figure="{name}">{spec}</script>'
    return f'<div class="figure" id="figure-{name}"></div>\n{data}'


def _svg(chart: alt.LayerChart) -> str:
    spec: dict[str, Any] = {**chart.properties(width=STATIC_WIDTH).to_dict(), "config": THEMES["light"]}
    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2]))
    return svg


def _write_whole(file: Path, text: str) -> None:
    """Replaces the file at once: who reads it meanwhile sees the old one or the new one."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(text.encode("utf-8", "replace"))  # a lone surrogate in a model's text must not cost the report
        os.chmod(name, 0o644)  # mkstemp's files are for their owner alone
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
