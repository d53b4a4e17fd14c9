"""The report's parts between its figures: notices, tables, samples, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from analysis.load import Study
from analysis.pareto import front_document
from analysis.plots import measures_process
from analysis.report_html import Cell, Column, definitions, escape, grid, measured, record_table
from analysis.wording import DASH, GIB, configuration_name, format_number, format_rate, format_value
from study.objectives import METRICS
from study.records import STATUSES, TrialRecord

PROCESS_MEMORY = (
    "Measured on a CPU: peak memory is the process’ resident peak, with Python and all libraries in it. "
    "It orders these configurations, but says nothing of a GPU’s memory."
)
BASE = "Base model, "
LENGTHS = (
    ("rows", "rows"), ("dropped", "dropped"), ("truncated", "truncated"), ("tokens", "tokens"),
    ("target_tokens", "target tokens"), ("min_length", "shortest"), ("median_length", "median"),
    ("p95_length", "95th percentile"), ("max_length", "longest"),
)  # fmt: skip


def notices(study: Study) -> str:
    """What a reader must know before comparing numbers."""
    texts = [PROCESS_MEMORY] if measures_process(study.records) else []
    complete = [record for record in study.records if record.status == "complete"]
    for kind, consequence in (
        ("quality", "base model, data or masking differ: their perplexity does not compare"),
        ("cost", "device, batch or engine differ: their memory and speed do not compare"),
    ):
        if len({record.comparable[kind] for record in complete if kind in record.comparable}) > 1:
            texts.append(f"Not all complete trials compare in {kind}; {consequence}.")
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in texts)


# -- tables ------------------------------------------------------------------------------------------------------------


def configuration_columns() -> list[Column]:
    """What was sampled."""
    return [
        Column("Precision", lambda record: _text(record.config.precision), numeric=False),
        Column("Rank", lambda record: Cell(str(record.config.rank), record.config.rank)),
        Column("Alpha", lambda record: Cell(f"{record.config.lora_alpha:g}", record.config.lora_alpha)),
        Column("Dropout", lambda record: Cell(f"{record.config.lora_dropout:g}", record.config.lora_dropout)),
        Column("Target modules", lambda record: _text(record.config.target_set), numeric=False),
        Column(
            "Learning rate", lambda record: Cell(format_rate(record.config.learning_rate), record.config.learning_rate)
        ),
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
        ("test_perplexity", measured("test_perplexity", "Test perplexity", "on rows that steered nothing")),
        ("accuracy", measured("accuracy", "Accuracy", "answers right on the evaluation split")),
        ("base_accuracy", measured("base_accuracy", "Base accuracy", "of the untuned base model")),
        ("test_accuracy", measured("test_accuracy", "Test accuracy", "on rows that steered nothing")),
        ("peak_memory_bytes", measured("peak_memory_bytes", "Peak memory", "training alone")),
        ("train_tokens_per_second", measured("train_tokens_per_second", "Train tokens/s", "training alone")),
        (
            "generated_tokens_per_second",
            measured("generated_tokens_per_second", "Generated tokens/s", "adapter active"),
        ),
        ("seconds_per_epoch", measured("seconds_per_epoch", "Time per epoch", "computed from the training speed")),
        ("energy_joules", measured("energy_joules", "Energy", "of the whole training, from the alone-measured rate")),
    ]
    there = {name for record in records for name, value in record.measurements.items() if value is not None}
    return [column for name, column in columns if name in always | there]


def front_table(study: Study, members: Sequence[TrialRecord]) -> str:
    """The front's configurations with what they reach and cost, cheapest first."""
    if not members:
        return '<p class="quiet">The front is empty: it is made of complete trials with all objectives measured.</p>'
    columns = [Column("Trial", lambda record: _text(record.trial_id), numeric=False)]
    columns += configuration_columns() + measurement_columns(members)
    return record_table(members, columns) + f'<p class="quiet">{escape(_hypervolume(study))}</p>'


def trials_table(study: Study, members: Sequence[TrialRecord]) -> str:
    """Every trial with its status; what went wrong stands in words beside it."""
    if not study.records:
        return '<p class="quiet">No trial has ended yet.</p>'
    on_front = frozenset(record.trial_id for record in members)
    main = ("Perplexity", "Accuracy", "Peak memory", "Train tokens/s")
    columns = [
        Column("Trial", lambda record: _text(record.trial_id), numeric=False),
        Column("Status", lambda record: _status(record, record.trial_id in on_front), numeric=False),
        *configuration_columns(),
        *(column for column in measurement_columns(study.records) if column.heading in main),
        measured("train_steps", "Steps", "optimizer steps done"),
        measured("wall_seconds", "Wall time", "from joining to the end, in company"),
        Column("What happened", _what_happened, numeric=False),
    ]
    return record_table(study.records, columns, on_front)


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
    text = "; ".join(lines)
    if error == last:
        return Cell(text, text or None, f'<span class="happened">{escape(text)}</span>')
    shown = f"<details><summary>{escape(text)}</summary><pre>{escape(error)}</pre></details>"
    return Cell(text, text, f'<div class="happened">{shown}</div>')


def _infeasible_words(record: TrialRecord) -> str:
    values = record.infeasible or {}
    asked = format_value("peak_memory_bytes", values.get("requested_bytes"))
    there = format_value("peak_memory_bytes", values.get("available_bytes"))
    return f"{values.get('source') or 'found'} in phase {values.get('phase') or DASH}: needs {asked}, there are {there}"


def _hypervolume(study: Study) -> str:
    document = front_document(study.records, study.objectives)
    units, size = [], document["hypervolume"]
    for objective in study.objectives:
        is_bytes = METRICS[objective.metric].unit == "bytes"
        size /= GIB if is_bytes else 1
        units.append("GiB" if is_bytes else objective.unit or objective.label.lower())
    corner = ", ".join(f"{o.label.lower()} {format_value(o.metric, o.reference)}" for o in study.objectives)
    return f"Hypervolume {format_number(size)} ({' × '.join(units)}), up to the reference point {corner}."


# -- samples -----------------------------------------------------------------------------------------------------------


def sample_groups(members: Sequence[TrialRecord]) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each prompt who answered what: the base model once for each precision, then each member of the front."""
    prompts = list(dict.fromkeys(str(sample.get("prompt")) for record in members for sample in record.samples))
    return [(prompt, _answers(prompt, members)) for prompt in prompts]


def _answers(prompt: str, members: Sequence[TrialRecord]) -> list[tuple[str, str]]:
    bases: dict[str, str] = {}
    tuned: list[tuple[str, str]] = []
    for record in members:
        for sample in record.samples:
            if str(sample.get("prompt")) == prompt:
                bases.setdefault(f"{BASE}{record.config.precision}", str(sample.get("base") or ""))
                tuned.append((f"{record.trial_id}: {configuration_name(record)}", str(sample.get("tuned") or "")))
    return [*bases.items(), *tuned]


def samples(members: Sequence[TrialRecord]) -> str:
    """The base model's and the tuned models' answers side by side, one fold for each prompt."""
    groups = sample_groups(members)
    if not groups:
        return '<p class="quiet">No samples: the study has no generation.prompts, or no trial is complete.</p>'
    return "\n".join(_fold(prompt, answers, is_open=i == 0) for i, (prompt, answers) in enumerate(groups))


def _fold(prompt: str, answers: Sequence[tuple[str, str]], is_open: bool) -> str:
    cards = "".join(_card(who, text) for who, text in answers)
    head = f'<summary dir="auto">{escape(prompt)}</summary>'
    return f'<details class="prompt"{" open" * is_open}>{head}<div class="answers">{cards}</div></details>'


def _card(who: str, text: str) -> str:
    kind = "answer base" if who.startswith(BASE) else "answer"
    shown = escape(text) or "<i>(nothing)</i>"
    return f'<figure class="{kind}"><figcaption>{escape(who)}</figcaption><p dir="auto">{shown}</p></figure>'


# -- provenance --------------------------------------------------------------------------------------------------------


def provenance(study: Study) -> str:
    """Where the numbers come from: model, devices, data, seeds, versions, and the study file itself."""
    parts = [definitions(_origins(study)), _lengths(study)]
    if study.provenance:
        parts.append(
            f"<details><summary>Versions and hardware</summary>{definitions(study.provenance.items())}</details>"
        )
    settings = yaml.safe_dump(dict(study.settings), sort_keys=False, allow_unicode=True, width=100)
    parts.append(f"<details><summary>The study file, resolved</summary><pre>{escape(settings)}</pre></details>")
    return "\n".join(part for part in parts if part)


def _origins(study: Study) -> list[tuple[str, Any]]:
    model = _distinct(
        study, lambda record: " ".join(str(v) for k, v in record.base_model.items() if v and k != "sha256")
    )
    return [
        ("base model", model),
        ("base model’s SHA-256", _distinct(study, lambda record: record.base_model.get("sha256"))),
        ("device", _distinct(study, lambda record: record.device.get("name"))),
        ("compute type", _distinct(study, _compute_type)),
        ("memory measured as", _distinct(study, lambda record: record.device.get("memory_source"))),
        ("dataset fingerprint", _distinct(study, lambda record: record.dataset.get("fingerprint"))),
        ("seeds of trials", _distinct(study, lambda record: record.config.seed)),
        ("seed of the data", (study.settings.get("dataset") or {}).get("seed")),
    ]


def _compute_type(record: TrialRecord) -> str | None:
    dtype = record.device.get("compute_dtype")
    return f"{dtype} ({record.config.precision})" if dtype else None


def _distinct(study: Study, value: Any) -> list[str]:
    return list(dict.fromkeys(str(v) for v in map(value, study.records) if v not in (None, "")))


def _lengths(study: Study) -> str:
    """The splits' sizes and lengths in tokens."""
    statistics = next(
        (record.dataset["statistics"] for record in study.records if record.dataset.get("statistics")), None
    )
    if not statistics:
        return ""
    there = [(key, heading) for key, heading in LENGTHS if any(key in split for split in statistics.values())]
    rows = [
        [name, *(DASH if split.get(key) is None else format_number(split[key]) for key, _ in there)]
        for name, split in statistics.items()
    ]
    return "<h3>Data, lengths in tokens</h3>" + grid(["split", *(heading for _, heading in there)], rows)
