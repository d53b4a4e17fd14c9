"""The report of a study: one HTML page that needs no network, and the front as JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import altair as alt
import vl_convert

from analysis.figures.every import figures
from analysis.figures.parts import Figure
from analysis.figures.style import THEMES
from analysis.load import Study, load_study
from analysis.pareto import front, front_document
from analysis.report import sections, trial_tables
from analysis.report.html import escape, note, script_json
from analysis.report.sections import Part
from analysis.tables import effects_table, importance_table, nf4_price_table, savings_table, uncertainty_table
from analysis.wording import count_seeds, count_statuses, headline
from study.records.layout import FRONT_FILE, REPORT_FILE

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
    drawn = figures(study)
    bundle = _javascript() if drawn else None
    parts = _parts(study, {name: sections.figure(figure, _drawing(figure, bundle)) for name, figure in drawn.items()})
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(study.name),
        counts=escape(f"{count_statuses(study.records)} · {count_seeds(study.records)}"),
        headline=escape(headline(study)),
        navigation=sections.navigation(parts),
        notices=sections.notices(study),
        parts=sections.whole(parts),
        bundle=bundle or "",
        themes=script_json(THEMES),
    )


def _parts(study: Study, drawings: Mapping[str, str]) -> list[Part]:
    members = front(study.records, study.objectives)
    front_figure = drawings.get("front") or note("No complete trial has all objectives yet: nothing to draw.")
    curves = drawings.get("curves") or note("No evaluation was recorded while training.")
    parts = [
        Part("front", "The front", f"{front_figure}\n{trial_tables.front_table(study, members)}"),
        Part("budgets", "Which configuration for which memory", trial_tables.budget_table(study)),
        *_answers(study),
        Part("trials", "All trials", trial_tables.trials_table(study, members)),
        Part("training", "Training", curves),
        Part("samples", "Samples", sections.samples(members)),
        Part("provenance", "Provenance", sections.provenance(study)),
    ]
    if "memory" in drawings:
        parts.insert(-2, Part("memory", "Memory", drawings["memory"]))
    return parts


def _answers(study: Study) -> list[Part]:
    """How sure the front is, what each choice does, and what early stopping saved: what there are numbers for."""
    made = {
        "sure": ("How sure", uncertainty_table(study)),
        "effects": ("What each choice does", effects_table(study)),
        "importance": ("What matters", importance_table(study)),
        "nf4": ("NF4’s price", nf4_price_table(study)),
        "savings": ("Early stopping", savings_table(study)),
    }
    return [Part(name, heading, sections.table(table)) for name, (heading, table) in made.items() if table is not None]


@cache
def _javascript() -> str | None:
    """Vega, Vega-Lite and its embedder as one script; None where this vl_convert has none to give."""
    make = getattr(vl_convert, "javascript_bundle", None)
    # In a script element only its own end tag ends it, and a comment's start confuses it.
    return make().replace("</script", "<\\/script").replace("<!--", "<\\!--") if make else None


def _drawing(figure: Figure, bundle: str | None) -> str:
    if bundle is None:
        return f'<div class="chart">{_svg(figure.chart)}</div>'
    spec = figure.chart.to_dict(validate=False)  # against a schema, which takes long; the tests do it
    del spec["title"]  # it stands above as text, which wraps
    label = f'role="img" aria-label="{escape(figure.title)}"'
    data = f'<script type="application/json" data-figure="{figure.name}">{script_json(spec)}</script>'
    return f'<div class="chart" id="figure-{figure.name}" {label}></div>\n{data}'


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
