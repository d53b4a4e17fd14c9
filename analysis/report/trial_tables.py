"""The report's tables of trials: the front, the budgets, and every trial with its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.load import Study
from analysis.pareto import TOLERANCE, front_document
from analysis.report.html import Cell, Column, escape, grid, measured, note, record_table
from analysis.statistics.budgets import (
    BUDGETS,
    T4,
    BudgetCard,
    best_within,
    least_memory,
    memory_metric,
    quality_objective,
)
from analysis.wording import (
    DASH,
    budget,
    configuration_name,
    format_rate,
    format_share,
    format_value,
    hypervolume_words,
    shorten,
)  # fmt: skip
from study.records.record import STATUSES, TrialRecord

ERROR_SHOWN = 4000  # characters of an error's end
REASON_SHOWN = 400
COMPONENT_SHARE = 0.02  # of what was asked for, from which a component is told
MOST_ROWS = 500  # of a table: more would swell the report; the front's come first
OTHERS_OPEN = 12  # more unhappy ends than these are folded


def configuration_columns() -> list[Column]:
    """What was sampled and differs most."""
    return [
        Column("Precision", lambda record: _text(record.config.precision), numeric=False),
        Column("Rank", lambda record: Cell(str(record.config.rank), record.config.rank)),
        Column("Target modules", lambda record: _text(record.config.target_set), numeric=False),
        Column(
            "Learning rate", lambda record: Cell(format_rate(record.config.learning_rate), record.config.learning_rate)
        ),
    ]


def further_columns() -> list[Column]:
    """What was sampled besides."""
    return [
        Column("Alpha", lambda record: Cell(f"{record.config.lora_alpha:g}", record.config.lora_alpha)),
        Column("Dropout", lambda record: Cell(f"{record.config.lora_dropout:g}", record.config.lora_dropout)),
        Column("Seed", lambda record: Cell(str(record.config.seed), record.config.seed)),
    ]


def measurement_columns(records: Sequence[TrialRecord]) -> list[Column]:
    """What was measured: the main columns always, the others where any of the records has a value."""
    always = {
        "perplexity",
        "peak_memory_bytes",
        "train_tokens_per_second",
        "generated_tokens_per_second",
        "seconds_per_epoch",
    }
    columns = [
        ("perplexity", measured("perplexity", "Perplexity", "evaluation split; lower is better")),
        ("base_perplexity", measured("base_perplexity", "Base model’s", "perplexity of the untuned base model")),
        ("base_perplexity", Column("Change", _perplexity_change, hint="perplexity against the base model’s")),
        ("accuracy", measured("accuracy", "Accuracy", "answers right on the evaluation split; higher is better")),
        ("base_accuracy", measured("base_accuracy", "Base accuracy", "of the untuned base model")),
        ("peak_memory_bytes", measured("peak_memory_bytes", "Peak memory", "training alone")),
        ("train_tokens_per_second", measured("train_tokens_per_second", "Train tokens/s", "training alone")),
        ("generated_tokens_per_second", measured("generated_tokens_per_second", "Gen. tokens/s", "adapter active")),
        ("seconds_per_epoch", measured("seconds_per_epoch", "Time per epoch", "computed from the training speed")),
        ("test_perplexity", measured("test_perplexity", "Test perplexity", "on rows that steered nothing")),
        ("test_accuracy", measured("test_accuracy", "Test accuracy", "on rows that steered nothing")),
        ("energy_joules", measured("energy_joules", "Energy", "of the whole training, from the alone-measured rate")),
    ]
    there = {name for record in records for name, value in record.measurements.items() if value is not None}
    return [column for name, column in columns if name in always | there]


def front_table(study: Study, members: Sequence[TrialRecord]) -> str:
    """The front's configurations with what they reach and cost, cheapest first."""
    if not members:
        return note("The front is empty: it is made of complete trials with all objectives measured.")
    columns = [Column("Trial", lambda record: _text(record.trial_id), numeric=False)]
    columns += configuration_columns() + measurement_columns(members) + further_columns()
    shown = _shown(members)
    return record_table(shown, columns) + _left_out(members, shown) + note(_hypervolume(study))


def trials_table(study: Study, members: Sequence[TrialRecord]) -> str:
    """Every trial with its status, and what happened to those that did not complete."""
    if not study.records:
        return note("No trial has ended yet.")
    on_front = frozenset(record.trial_id for record in members)
    main = ("Perplexity", "Accuracy", "Peak memory", "Train tokens/s")
    columns = [
        Column("Trial", lambda record: _text(record.trial_id), numeric=False),
        Column("Status", lambda record: _status(record, record.trial_id in on_front), numeric=False),
        *configuration_columns(),
        *(column for column in measurement_columns(study.records) if column.heading in main),
        measured("train_steps", "Steps", "optimizer steps done"),
        measured("wall_seconds", "Wall time", "from joining to the end, in company"),
        *further_columns(),
    ]
    shown = _shown(study.records, on_front)
    return record_table(shown, columns, on_front) + _left_out(study.records, shown) + _others(study)


def _shown(records: Sequence[TrialRecord], first: frozenset[str] = frozenset()) -> list[TrialRecord]:
    """At most MOST_ROWS of the records in their order, those in `first` before any other."""
    kept = sorted(records, key=lambda record: record.trial_id not in first)[:MOST_ROWS]
    ids = {record.trial_id for record in kept}
    return [record for record in records if record.trial_id in ids]


def _left_out(records: Sequence[TrialRecord], shown: Sequence[TrialRecord]) -> str:
    count = len(records) - len(shown)
    return note(f"{count} more trials stand in results.jsonl and results.parquet.") if count else ""


def _others(study: Study) -> str:
    records = [record for record in study.records if record.status != "complete"]
    shown = _shown(records)
    if not records:
        return ""
    columns = [
        Column("Trial", lambda record: _text(record.trial_id), numeric=False),
        Column("Status", lambda record: _status(record, False), numeric=False),
        Column("What happened", _what_happened, numeric=False),
        *configuration_columns(),
    ]
    is_open = " open" * (len(records) <= OTHERS_OPEN)
    head = f"<summary>What happened to the {len(records)} that did not complete</summary>"
    table = record_table(shown, columns) + _left_out(records, shown)
    return f'<details class="others"{is_open}>{head}{table}</details>'


def budget_table(study: Study) -> str:
    """The configuration to take under each of the usual budgets and the study's own."""
    records, objectives = study.records, study.objectives
    if least_memory(records, objectives) is None:
        return note("No complete trial with quality and memory measured yet: no budget to answer for.")
    quality = quality_objective(objectives)
    headings = ("Memory there is", "Trial", "Configuration", quality.label, "Against the best", "It needs", "It leaves")
    rows = [_budget_row(size, best_within(records, objectives, size), study) for size in _budgets(study)]
    words = (
        f"The least memory within {format_share(TOLERANCE)} of the best {quality.label.lower()} that fits. "
        "“Against the best” is what the budget costs: the loss against the study’s best trial, whatever that needs."
    )
    return grid(headings, rows, texts=2) + note(words)


def _budgets(study: Study) -> list[float]:
    metric = memory_metric(study.objectives)
    own = [budget(study, objective) for objective in study.objectives if objective.metric == metric]
    own += [] if study.memory_limit is None else [study.memory_limit]
    shown = {format_value(metric, size): float(size) for size in (*own, *BUDGETS)}
    return sorted(shown.values())


def _budget_name(size: float, study: Study) -> str:
    """`8 GiB`, `14.56 GiB (a T4)`, `1.25 GiB (this study’s)`."""
    name = format_value(memory_metric(study.objectives), size).replace(".00 ", " ")
    if size in map(float, BUDGETS):
        return f"{name} (a T4)" if size == T4 else name
    return f"{name} (this study’s)"


def _budget_row(size: float, card: BudgetCard | None, study: Study) -> list[str]:
    metric = memory_metric(study.objectives)
    name = _budget_name(size, study)
    if card is None:
        least = format_value(metric, least_memory(study.records, study.objectives))
        return [name, DASH, f"nothing fits; the smallest needs {least}", DASH, DASH, DASH, DASH]
    quality = quality_objective(study.objectives)
    loss = "the best" if card.loss == 0 else f"{format_share(card.loss)} worse"
    return [
        name,
        card.record.trial_id,
        configuration_name(card.record),
        format_value(quality.metric, card.quality),
        loss,
        format_value(metric, card.memory_bytes),
        format_value(metric, card.spare_bytes),
    ]


def _text(text: str) -> Cell:
    return Cell(text, text)


def _status(record: TrialRecord, on_front: bool) -> Cell:
    star = '<span class="star" title="on the front">★</span>' if on_front else ""
    order = STATUSES.index(record.status) - on_front / 2  # sorting brings the front first
    return Cell(record.status, order, f'<span class="status {record.status}">{record.status}</span>{star}')


def _perplexity_change(record: TrialRecord) -> Cell:
    value, base = record.measurements["perplexity"], record.measurements["base_perplexity"]
    if value is None or not base:
        return Cell(DASH)
    change = 100 * (value / base - 1)
    return Cell(f"{change:+.1f} %".replace("-", "−"), change)


def _what_happened(record: TrialRecord) -> Cell:
    lines = [record.reason] if record.reason else []
    if record.infeasible:
        lines.append(_infeasible_words(record))
    error = (record.error or "").strip()
    last = error.splitlines()[-1] if error else ""
    if last and last not in lines:
        lines.append(last)
    text = shorten("; ".join(lines), REASON_SHOWN)
    if error == last and len(error) <= REASON_SHOWN:
        return Cell(text, text or None, f'<span class="happened">{escape(text)}</span>')
    end = error if len(error) <= ERROR_SHOWN else f"… {error[-ERROR_SHOWN:]}"
    shown = f"<details><summary>{escape(text)}</summary><pre>{escape(end)}</pre></details>"
    return Cell(text, text, f'<div class="happened">{shown}</div>')


def _infeasible_words(record: TrialRecord) -> str:
    values = record.infeasible or {}
    asked = format_value("peak_memory_bytes", values.get("requested_bytes"))
    there = format_value("peak_memory_bytes", values.get("available_bytes"))
    where = f"{values.get('source') or 'found'} in phase {values.get('phase') or DASH}"
    words = f"{where}: needs {asked}, there are {there}"
    parts = values.get("components")
    return f"{words} ({_component_words(parts)})" if isinstance(parts, dict) and parts else words


def _component_words(parts: Mapping[str, Any]) -> str:
    """The components that matter, the largest first: `base linears 13.00 GiB, embedding and head 1.96 GiB`."""
    sizes = {name: float(size) for name, size in parts.items() if isinstance(size, int | float)}
    least = COMPONENT_SHARE * sum(sizes.values())
    shown = sorted(((size, name) for name, size in sizes.items() if size >= least), reverse=True)
    return ", ".join(f"{name.replace('_', ' ')} {format_value('peak_memory_bytes', size)}" for size, name in shown)


def _hypervolume(study: Study) -> str:
    return hypervolume_words(study.objectives, front_document(study.records, study.objectives)["hypervolume"])
