"""The report's tables of trials: the front, every trial, and those that did not complete."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from analysis.host_memory import HEADING, NOTE, any_waited
from analysis.load import Study
from analysis.pareto import front_document
from analysis.report.ends import end_cell
from analysis.report.record_table import Cell, Column, measured, record_table, text_cell
from analysis.report.rendering import note, render
from analysis.wording import DASH, format_rate, hypervolume_words
from study.records.layout import RESULTS_FILE, TABLE_FILE
from study.records.record import STATUSES, TrialRecord

MOST_ROWS = 500  # of a table: more would swell the report; the front's come first
OTHERS_OPEN = 12  # more unhappy ends than these are folded


def configuration_columns() -> list[Column]:
    """What was sampled and differs most."""
    return [
        Column("Precision", lambda record: text_cell(record.config.precision), numeric=False),
        Column("Rank", lambda record: Cell(str(record.config.rank), record.config.rank)),
        Column("Target modules", lambda record: text_cell(record.config.target_set), numeric=False),
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


def offload_columns(records: Sequence[TrialRecord]) -> list[Column]:
    """What of each training waited in host memory; no column where nothing did of any."""
    if not any_waited(records):
        return []
    return [Column(HEADING, lambda record: text_cell(record.offload.words or DASH), numeric=False)]


def front_table(study: Study, members: Sequence[TrialRecord]) -> Markup:
    """The front's configurations with what they reach and cost, cheapest first."""
    if not members:
        return note("The front is empty: it is made of complete trials with all objectives measured.")
    columns = [Column("Trial", lambda record: text_cell(record.trial_id), numeric=False)]
    columns += configuration_columns() + offload_columns(members) + measurement_columns(members) + further_columns()
    shown = _shown(members)
    return record_table(shown, columns) + _left_out(members, shown) + _mark(members) + note(_hypervolume(study))


def trials_table(study: Study, members: Sequence[TrialRecord]) -> Markup:
    """Every trial with its status, and what happened to those that did not complete."""
    if not study.records:
        return note("No trial has ended yet.")
    on_front = frozenset(record.trial_id for record in members)
    main = ("Perplexity", "Accuracy", "Peak memory", "Train tokens/s")
    columns = [
        Column("Trial", lambda record: text_cell(record.trial_id), numeric=False),
        Column("Status", lambda record: _status(record, record.trial_id in on_front), numeric=False),
        *configuration_columns(),
        *offload_columns(study.records),
        *(column for column in measurement_columns(study.records) if column.heading in main),
        measured("train_steps", "Steps", "optimizer steps done"),
        measured("wall_seconds", "Wall time", "from joining a host to the end, in a pack"),
        *further_columns(),
    ]
    shown = _shown(study.records, on_front)
    table = record_table(shown, columns, on_front)
    return table + _left_out(study.records, shown) + _mark(study.records) + _others(study)


def _mark(records: Sequence[TrialRecord]) -> Markup:
    """What the mark of times means, where one stands."""
    return note(NOTE) if any_waited(records) else Markup()


def _shown(records: Sequence[TrialRecord], first: frozenset[str] = frozenset()) -> list[TrialRecord]:
    """At most MOST_ROWS of the records in their order, those in `first` before any other."""
    kept = sorted(records, key=lambda record: record.trial_id not in first)[:MOST_ROWS]
    ids = {record.trial_id for record in kept}
    return [record for record in records if record.trial_id in ids]


def _left_out(records: Sequence[TrialRecord], shown: Sequence[TrialRecord]) -> Markup:
    count = len(records) - len(shown)
    return note(f"{count} more trials stand in {RESULTS_FILE} and {TABLE_FILE}.") if count else Markup()


def _others(study: Study) -> Markup:
    """The trials that did not complete, with what happened to them."""
    records = [record for record in study.records if record.status != "complete"]
    if not records:
        return Markup()
    columns = [
        Column("Trial", lambda record: text_cell(record.trial_id), numeric=False),
        Column("Status", lambda record: _status(record, False), numeric=False),
        Column("What happened", end_cell, numeric=False),
        *configuration_columns(),
    ]
    shown = _shown(records)
    table = record_table(shown, columns) + _left_out(records, shown)
    return render("others.html", count=len(records), is_open=len(records) <= OTHERS_OPEN, table=table)


def _status(record: TrialRecord, on_front: bool) -> Cell:
    order = STATUSES.index(record.status) - on_front / 2  # sorting brings the front first
    return Cell(record.status, order, render("status.html", status=record.status, on_front=on_front))


def _perplexity_change(record: TrialRecord) -> Cell:
    value, base = record.measurements["perplexity"], record.measurements["base_perplexity"]
    if value is None or not base:
        return Cell(DASH)
    change = 100 * (value / base - 1)
    return Cell(f"{change:+.1f} %".replace("-", "−"), change)


def _hypervolume(study: Study) -> str:
    return hypervolume_words(study.objectives, front_document(study.records, study.objectives)["hypervolume"])
