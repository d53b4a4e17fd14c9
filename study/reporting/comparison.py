"""Sets studies side by side in words and tables, and refuses what does not compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.compare import (
    KINDS,
    QUALITY,
    changes,
    common_objectives,
    differing_settings,
    incomparable,
    joint_front,
    pairs,
)
from analysis.load import Study, load_study
from analysis.method_comparison import MEMORY_SOURCE, is_method_comparison, load_method_comparison
from analysis.pareto import hypervolume
from analysis.statistics.bootstrap import Interval
from analysis.wording import DASH, configuration_name, count_statuses, format_share, format_value, headline, shorten
from study.errors import Absent, ConfigError, ConfigFault
from study.output import aligned
from study.records.layout import study_file
from study.records.objectives import METRICS, Objective, objective_values
from study.records.reading import set_aside_words
from study.records.record import TrialRecord

COMPARED = ("perplexity", "accuracy", "peak_memory_bytes", "train_tokens_per_second", "seconds_per_epoch")
SHOWN_PAIRS = 40
SHOWN_SETTINGS = 30
VALUE_CHARACTERS = 40


def compare(paths: Sequence[Path]) -> str:
    """The studies side by side, each against the first; PEFT's published results stand beside them.

    Raises ConfigError where fewer than two are given, where one cannot be read, and where nothing of two studies
    compares, with the reasons.
    """
    published = [load_method_comparison(path) for path in paths if is_method_comparison(path)]
    studies = _named_apart([_study(path) for path in paths if not is_method_comparison(path)])
    if not studies or len(paths) < 2:
        rule = "must be two or more, at least one of them a study's directory"
        remedy = "Name directories that `python -m study run` made; PEFT's result files may stand beside."
        raise ConfigError([ConfigFault("compare", "DIR", " ".join(map(str, paths)), rule, remedy)])
    refused = [fault for other in studies[1:] if (fault := _refusal(studies[0], other)) is not None]
    if refused:
        raise ConfigError(refused)
    parts = [_introduction(study) for study in studies]
    parts += [part for other in studies[1:] for part in _two(studies[0], other)]
    parts += [_beside(study) for study in published]
    return "\n\n".join(part for part in parts if part)


def _study(path: Path) -> Study:
    study_file(path)
    return load_study(path)


def _named_apart(studies: Sequence[Study]) -> list[Study]:
    """The studies, those of one name told apart by their directories' names."""
    names = [study.name for study in studies]
    return [
        replace(study, name=study.directory.resolve().name) if names.count(study.name) > 1 else study
        for study in studies
    ]


def _refusal(first: Study, other: Study) -> ConfigFault | None:
    """Why nothing of the two compares; None where something does."""
    quality, cost = (incomparable(first, other, kind) for kind in KINDS)
    if not quality or not cost:
        return None
    more = [reason for reason in cost if reason not in quality]
    rule = f"must compare with {first.name} in quality or in cost; {'; '.join(quality)}"
    if more:
        rule += f"; for cost also: {'; '.join(more)}"
    remedy = (
        "Run both over the same base model, data and length; for cost also on the same card and with the same batch."
    )
    return ConfigFault(str(other.directory), "", Absent.UNSHOWN, rule, remedy)


def _introduction(study: Study) -> str:
    devices = dict.fromkeys(str(record.device.get("name")) for record in study.records if record.device.get("name"))
    git = study.provenance.get("git")
    commit = git.get("commit") if isinstance(git, dict) else None
    facts = [count_statuses(study.records), ", ".join(devices), f"commit {str(commit)[:7]}" if commit else ""]
    left_out = set_aside_words(study.set_aside)
    said = [f"{study.name}: {'; '.join(fact for fact in facts if fact)}", f"  {headline(study)}"]
    return "\n".join([*said, *([f"  {left_out}"] if left_out else [])])


def _two(first: Study, other: Study) -> list[str]:
    reasons = {kind: incomparable(first, other, kind) for kind in KINDS}
    said = [
        f"{kind.capitalize()} does not compare: {'; '.join(why)}." if why else f"{kind.capitalize()} compares."
        for kind, why in reasons.items()
    ]
    metrics = [metric for metric in COMPARED if not reasons["quality" if metric in QUALITY else "cost"]]
    both = pairs(first, other)
    parts = ["\n".join([f"{other.name} against {first.name}", *(f"  {text}" for text in said)])]
    parts += [_pairs_table(first, other, both, metrics), _changes(both, metrics), _settings(first, other)]
    if not any(reasons.values()):
        parts.append(_joint(first, other))
    return parts


def _pairs_table(
    first: Study, other: Study, both: Sequence[tuple[TrialRecord, TrialRecord]], metrics: Sequence[str]
) -> str:
    if not both:
        return "No configuration (with its seed) is complete in both."
    known = [
        metric for metric in metrics
        if any(record.measurements.get(metric) is not None for pair in both for record in pair)
    ]  # fmt: skip
    headings = ["configuration"]
    for metric in known:
        headings += [f"{METRICS[metric].label.lower()} {first.name}", other.name]
    rows = [
        [configuration_name(one), *(format_value(m, r.measurements.get(m)) for m in known for r in (one, two))]
        for one, two in both[:SHOWN_PAIRS]
    ]
    more = f"\n  and {len(both) - SHOWN_PAIRS} more" if len(both) > SHOWN_PAIRS else ""
    return f"Complete in both ({len(both)}):\n{aligned(headings, rows, left=1)}{more}"


def _changes(both: Sequence[tuple[TrialRecord, TrialRecord]], metrics: Sequence[str]) -> str:
    found = changes(both, metrics)
    rows = [
        [METRICS[one.metric].label.lower(), *_change_words(one.metric, one.change), str(one.pairs)] for one in found
    ]
    head = "The second against the first, mean over configurations, with a 95 % interval over them:"
    return f"{head}\n{aligned(['', 'change', 'from', 'to', 'pairs'], rows, left=1)}" if rows else ""


def _change_words(metric: str, change: Interval) -> list[str]:
    points = metric.endswith("accuracy")
    return [_signed(value, points) for value in (change.value, change.low, change.high)]


def _signed(value: float, points: bool) -> str:
    if not math.isfinite(value):
        return DASH
    text = f"{100 * value:.3g} points" if points else format_share(round(value, 4))
    return f"+{text}" if value > 0 else text


def _settings(first: Study, other: Study) -> str:
    differ = differing_settings(first, other)
    rows = [[key, _value(one), _value(two)] for key, one, two in differ[:SHOWN_SETTINGS]]
    more = f"\n  and {len(differ) - SHOWN_SETTINGS} more" if len(differ) > SHOWN_SETTINGS else ""
    head = "What their study files have different:"
    return f"{head}\n{aligned(['key', first.name, other.name], rows, left=3)}{more}" if rows else ""


def _value(value: Any) -> str:
    return shorten(DASH if value is None else str(value), VALUE_CHARACTERS)


def _joint(first: Study, other: Study) -> str:
    objectives = common_objectives((first, other))
    if len(objectives) < 2:
        return "They share fewer than two objectives, so there is no front of both."
    members = joint_front((first, other), objectives)
    headings = ["study", "trial", "configuration", *(objective.label.lower() for objective in objectives)]
    rows = [
        [study.name, record.trial_id, configuration_name(record),
         *(format_value(objective.metric, record.measurements[objective.metric]) for objective in objectives)]
        for study, record in members
    ]  # fmt: skip
    volumes = {
        name: _volume(records, objectives)
        for name, records in (
            (first.name, first.records),
            (other.name, other.records),
            ("both together", (*first.records, *other.records)),
        )
    }
    whole = volumes["both together"]
    shares = ", ".join(
        f"{name} {format_share(round(volume / whole, 4))}" for name, volume in list(volumes.items())[:2] if whole
    )
    covered = f"\n  Of the hypervolume of both together, each alone covers: {shares}." if shares else ""
    return f"The front of both together:\n{aligned(headings, rows, left=3)}{covered}"


def _volume(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> float:
    points = [
        [one.to_minimize(value) for one, value in zip(objectives, values, strict=True)]
        for record in records
        if record.status == "complete" and (values := objective_values(record.measurements, objectives))
    ]
    return hypervolume(points, [one.to_minimize(one.reference) for one in objectives]) if points else 0.0


def _beside(study: Study) -> str:
    """Published results: for orientation only."""
    metrics = ("test_accuracy", "peak_reserved_bytes", "train_tokens_per_second", "wall_seconds")
    headings = ["run", "configuration", "test accuracy", "peak reserved", "tokens/s", "wall time"]
    rows = [
        [record.trial_id, configuration_name(record), *(format_value(m, record.measurements.get(m)) for m in metrics)]
        for record in study.records
    ]
    models = dict.fromkeys(
        f"{record.base_model.get('path')} on {record.device.get('name')}" for record in study.records
    )
    other_methods = study.provenance.get("left_out") or {}
    head = (
        f"Beside them, {study.name} ({', '.join(models) or 'no run of plain LoRA'}). Nothing of it compares: other "
        f"data and another measure of accuracy (GSM8K, generated answers); memory is {MEMORY_SOURCE}."
    )
    tail = f"\n  Left out, since no plain LoRA with AdamW: {len(other_methods)}." if other_methods else ""
    return f"{head}\n{aligned(headings, rows)}{tail}" if rows else f"{head}{tail}"
