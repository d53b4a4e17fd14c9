"""What a study says while it runs and at its end: the front, the best, the trials without a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.host_memory import MARK, NOTE, any_waited, marked
from analysis.load import Study, load_study
from analysis.pareto import best, front
from analysis.wording import DASH, configuration_name, count_statuses, format_value, headline, shorten, status_words
from study.output import aligned, plural
from study.records.objectives import Objective
from study.records.reading import set_aside_words
from study.records.record import TrialRecord
from study.reporting.naming import configuration_names

SHOWN_UNFORTUNATE = 20
REASON_CHARACTERS = 160
UNFORTUNATE = ("infeasible", "diverged", "failed")


def ending_text(study: Study, report: Path | None) -> str:
    """Everything that a study says at its end, with the path of its report where there is one."""
    parts = [f"{study.name}: {count_statuses(study.records)}", _front(study), _best(study)]
    parts += [_unfortunate(study.records), set_aside_words(study.set_aside), f"Report: {report}" if report else ""]
    return "\n\n".join(part for part in parts if part)


def front_rows(study: Study) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of the front, cheapest first; a column without any value is left out."""
    members = front(study.records, study.objectives)
    names = configuration_names(study.records)
    columns: dict[str, list[str]] = {"trial": [record.trial_id for record in members]}
    columns["configuration"] = [names[record.trial_id] for record in members]
    columns["perplexity (base)"] = [_against_base(record, "perplexity") for record in members]
    columns["peak memory"] = _values(members, "peak_memory_bytes")
    columns["train tokens/s"] = _values(members, "train_tokens_per_second")
    if any_waited(members):
        columns["in host memory"] = [record.offload.words or DASH for record in members]
    if any(record.measurements["accuracy"] is not None for record in members):
        columns["accuracy (base)"] = [_against_base(record, "accuracy") for record in members]
    shown = {"perplexity", "accuracy", "peak_memory_bytes", "train_tokens_per_second"}
    for objective in study.objectives:
        if objective.metric not in shown:
            columns[objective.label.lower()] = _values(members, objective.metric)
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _front(study: Study) -> str:
    headings, rows = front_rows(study)
    if not rows:
        return ""
    trials = plural(len(rows), "trial")
    return _under(f"The Pareto front of {trials}, {_goals(study.objectives)}:", headings, rows)


def _under(head: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The front's table under its head, with what a mark in it means."""
    note = f"\n{NOTE}" if any(text.endswith(MARK) for row in rows for text in row) else ""
    return f"{head}\n{aligned(headings, rows)}{note}"


def _goals(objectives: Sequence[Objective]) -> str:
    """`minimizing perplexity and peak memory, maximizing training speed`."""
    parts = []
    for direction, doing in (("minimize", "minimizing"), ("maximize", "maximizing")):
        labels = [one.label.lower() for one in objectives if one.direction == direction]
        if labels:
            parts.append(f"{doing} {' and '.join([', '.join(labels[:-1]), labels[-1]] if labels[1:] else labels)}")
    return ", ".join(parts)


def _best(study: Study) -> str:
    text = headline(study)
    top = best(study.records, study.objectives)
    if top is None:
        return text
    where = study.directory / top.adapter if top.adapter else None
    saved = f" Its adapter: {where}" if where is not None and where.is_dir() else ""
    first = study.objectives[0].label.lower()
    return f"{text}\nBest {first} of all: {top.trial_id} ({configuration_name(top)}).{saved}"


def _unfortunate(records: Sequence[TrialRecord]) -> str:
    """The trials that gave no result, each with its reason."""
    them = [record for record in records if record.status in UNFORTUNATE]
    if not them:
        return ""
    names = configuration_names(records)
    rows = [
        [record.trial_id, record.status, f"{names[record.trial_id]}: {_reason(record)}"]
        for record in them[:SHOWN_UNFORTUNATE]
    ]
    more = f"\n  and {len(them) - SHOWN_UNFORTUNATE} more; the report lists them all" if len(them) > len(rows) else ""
    return f"Without a result:\n{aligned(['trial', 'status', 'configuration and reason'], rows, left=3)}{more}"


def _reason(record: TrialRecord) -> str:
    return shorten(" ".join((record.reason or "no reason given").split()), REASON_CHARACTERS)


def _values(records: Sequence[TrialRecord], metric: str) -> list[str]:
    return [marked(record, metric, format_value(metric, record.measurements[metric])) for record in records]


def _against_base(record: TrialRecord, metric: str) -> str:
    """The tuned model's value, and in brackets the base model's."""
    tuned, base = record.measurements[metric], record.measurements.get(f"base_{metric}")
    text = format_value(metric, tuned)
    return text if base is None else f"{text} ({format_value(metric, base)})"


def standing_text(directory: Path) -> str:
    """A study's progress and its front so far, in words. Raises StudyDirectoryError where it is none."""
    return standing(load_study(directory))


def standing(study: Study) -> str:
    """Trials that have ended, of those there are, and the front among them."""
    ended, trials = len(study.records), _trials(study.settings)
    of = f" of {trials}" if trials is not None else ""
    head = f"{study.name}: {ended}{of} trials ended"
    left_out = set_aside_words(study.set_aside)
    if not study.records:
        return f"{head}\n\n{left_out}".rstrip()
    headings, rows = front_rows(study)
    front = _under("The front so far:", headings, rows) if rows else "No trial is complete yet."
    return "\n\n".join(filter(None, [f"{head} ({status_words(study.records)})", front, left_out]))


def _trials(settings: Any) -> int | None:
    """How many trials a resolved study file asks for; a grid runs every configuration (its trials) as they stand."""
    search = settings.get("search")
    trials = search.get("trials") if isinstance(search, dict) else None
    if not isinstance(trials, int):
        return None
    seeds = settings.get("seeds")
    many = len(seeds) if isinstance(seeds, list) and search.get("algorithm") == "grid" else 1
    return trials * many
