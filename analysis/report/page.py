"""Writes the report of a study: one HTML page that needs no network, and the front as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from analysis.figures.every import figures
from analysis.figures.style import THEMES
from analysis.load import Study, load_study
from analysis.pareto import front, front_document
from analysis.report.drawing import drawing
from analysis.report.javascript import javascript
from analysis.report.notices import notices
from analysis.report.provenance import provenance
from analysis.report.rendering import note, render, script_json
from analysis.report.samples import samples
from analysis.report.timeline import timeline
from analysis.report.trial_tables import front_table, trials_table
from analysis.tables.every import TABLES
from analysis.wording import count_seeds, count_statuses, headline
from study.records.files import write_whole
from study.records.layout import FRONT_FILE, REPORT_FILE
from study.records.study_files import written

ANSWERS = {  # parts that are there where the study has numbers for them: table, anchor, heading
    "uncertainty": ("sure", "How sure"),
    "effects": ("effects", "What each choice does"),
    "importance": ("importance", "What matters"),
    "nf4_price": ("nf4", "NF4’s price"),
    "savings": ("savings", "Early stopping"),
}


@dataclass(frozen=True)
class Part:
    """A part of the page: its anchor, its heading, and its HTML."""

    anchor: str
    heading: str
    markup: Markup


REMEDY = (
    "Move away what is there, give yourself the right to write into the folder, "
    "or copy the study's directory to where you may write; then try again."
)


def write_report(study: Study | Path | str) -> Path:
    """Writes `report.html` and `pareto.json` into a study's directory, each whole or not at all.

    Returns the report's path. It may be called at any moment of a study, also before any trial has ended. Raises
    StudyDirectoryError where the directory cannot be read, StoreError where the files cannot be written.
    """
    study = study if isinstance(study, Study) else load_study(study)
    document = front_document(study.records, study.objectives)
    _replace(study.directory / FRONT_FILE, json.dumps(document, indent=2, allow_nan=False) + "\n")
    # Half a surrogate pair in a model's text, for which UTF-8 has no form, must not cost the report.
    page = report_page(study).encode("utf-8", "replace").decode("utf-8")
    return _replace(study.directory / REPORT_FILE, page)


def _replace(file: Path, text: str) -> Path:
    with written(file, REMEDY):
        return write_whole(file, text)


def report_page(study: Study, refresh_seconds: int | None = None) -> str:
    """The whole page; with `refresh_seconds` it asks its server for the next one by itself, so often."""
    drawn = figures(study)
    bundle = javascript() if drawn else None
    drawings = {name: drawing(figure, with_javascript=bundle is not None) for name, figure in drawn.items()}
    page = render(
        "page.html",
        title=study.name,
        counts=f"{count_statuses(study.records)} · {count_seeds(study.records)}",
        headline=headline(study),
        notices=notices(study),
        parts=_parts(study, drawings),
        bundle=bundle or "",
        themes=script_json(THEMES),
        refresh_seconds=refresh_seconds,
    )
    return str(page)  # plain text from here on: `Markup` would escape what is added to it


def _parts(study: Study, drawings: Mapping[str, Markup]) -> list[Part]:
    members = front(study.records, study.objectives)
    figure = drawings.get("front") or note("No complete trial has all objectives yet: nothing to draw.")
    curves = drawings.get("curves") or note("No evaluation was recorded while training.")
    no_budget = note("No complete trial with quality and memory measured yet: nothing to choose from.")
    return [
        Part("front", "The front", figure + "\n" + front_table(study, members)),
        Part("budgets", "Which configuration for which memory", _table(study, "budgets") or no_budget),
        *(Part(*names, markup) for name, names in ANSWERS.items() if (markup := _table(study, name))),
        Part("trials", "All trials", trials_table(study, members)),
        Part("training", "Training", curves),
        *(Part("memory", "Memory", drawings[name]) for name in ("memory",) if name in drawings),
        Part("samples", "Samples", samples(members)),
        *(Part("timeline", "Where the time went", markup) for markup in (timeline(study),) if markup),
        Part("provenance", "Provenance", provenance(study)),
    ]


def _table(study: Study, name: str) -> Markup | None:
    """A table with its caption; None where the study has no numbers for it."""
    table = TABLES[name](study)
    return None if table is None else render("table.html", table=table)
