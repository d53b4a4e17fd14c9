"""What a study says at its end: the front, the best configuration, the trials without a result. (no torch, no ray)"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from analysis.load import Study
from analysis.pareto import best, front
from analysis.wording import configuration_name, count_statuses, format_value, headline, shorten
from search_spaces.trial_config import TrialConfig
from study.records.record import TrialRecord

SHOWN_UNFORTUNATE = 20
REASON_CHARACTERS = 160
UNFORTUNATE = ("infeasible", "diverged", "failed")
_EXTRAS: tuple[Callable[[TrialConfig], str], ...] = (
    lambda config: f"alpha {config.lora_alpha:g}",
    lambda config: f"dropout {config.lora_dropout:g}",
    lambda config: f"seed {config.seed}",
)


def ending_text(study: Study, report: Path) -> str:
    """Everything that a study says at its end, with the path of its report."""
    parts = [f"{study.name}: {count_statuses(study.records)}", _front(study), _best(study)]
    parts += [_unfortunate(study.records), f"Report: {report}"]
    return "\n\n".join(part for part in parts if part)


def resume_command(directory: Path) -> str:
    """What goes on with a study: `python -m study resume DIR`."""
    return shlex.join(["python", "-m", "study", "resume", str(directory)])


def front_rows(study: Study) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of the front, cheapest first; a column without any value is left out."""
    members = front(study.records, study.objectives)
    names = configuration_names(study.records)
    columns: dict[str, list[str]] = {"trial": [record.trial_id for record in members]}
    columns["configuration"] = [names[record.trial_id] for record in members]
    columns["perplexity (base)"] = [_against_base(record, "perplexity") for record in members]
    columns["peak memory"] = _values(members, "peak_memory_bytes")
    columns["train tokens/s"] = _values(members, "train_tokens_per_second")
    if any(record.measurements["accuracy"] is not None for record in members):
        columns["accuracy (base)"] = [_against_base(record, "accuracy") for record in members]
    shown = {"perplexity", "accuracy", "peak_memory_bytes", "train_tokens_per_second"}
    for objective in study.objectives:
        if objective.metric not in shown:
            columns[objective.label.lower()] = _values(members, objective.metric)
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def configuration_names(records: Sequence[TrialRecord]) -> Mapping[str, str]:
    """Each trial's configuration in short, by trial id; with alpha, dropout or seed where only that tells two apart."""
    names = told_apart([configuration_name(record) for record in records], [record.config for record in records])
    return {record.trial_id: name for record, name in zip(records, names, strict=True)}


def told_apart(names: Sequence[str], configs: Sequence[TrialConfig]) -> list[str]:
    """The names of these configurations, with alpha, dropout or seed where only that tells two apart."""
    told = list(names)
    for extra in _EXTRAS:
        alike: dict[str, set[str]] = {}
        for name, config in zip(told, configs, strict=True):
            alike.setdefault(name, set()).add(extra(config))
        told = [
            f"{name}, {extra(config)}" if len(alike[name]) > 1 else name
            for name, config in zip(told, configs, strict=True)
        ]
    return told


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """A table in plain text, indented by two; the first `left` columns stand at the left, the others at the right."""
    every = [list(headings), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    return "\n".join("  " + _aligned_row(row, widths, left) for row in every)


def _aligned_row(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    cells = [
        cell.ljust(width) if index < left else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "   ".join(cells).rstrip()


def _front(study: Study) -> str:
    headings, rows = front_rows(study)
    if not rows:
        return ""
    goals = " and ".join(f"{objective.label.lower()} ({objective.direction}d)" for objective in study.objectives)
    kind = "trial" if len(rows) == 1 else "trials"
    head = f"The front, {len(rows)} {kind} that no other surpasses in {goals}:"
    return f"{head}\n{aligned(headings, rows)}"


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
    return [format_value(metric, record.measurements[metric]) for record in records]


def _against_base(record: TrialRecord, metric: str) -> str:
    """The tuned model's value, and in brackets the base model's."""
    tuned, base = record.measurements[metric], record.measurements.get(f"base_{metric}")
    text = format_value(metric, tuned)
    return text if base is None else f"{text} ({format_value(metric, base)})"
