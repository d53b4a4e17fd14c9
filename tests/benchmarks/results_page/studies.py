"""The sections of measured studies: result, every trial with its end, and what the choices do."""

from __future__ import annotations

from pathlib import Path

from analysis.load import Study
from analysis.pareto import front
from analysis.tables.effects import effects_table, nf4_price_table
from analysis.tables.table import Table
from analysis.tables.uncertainty import uncertainty_table
from analysis.wording import DASH, configuration_name, count_statuses, format_value, headline
from study.records.record import TrialRecord
from tests.benchmarks.results_page.markdown import cell, markdown_table


def study_section(study: Study) -> str:
    """A study's result, every trial with its end, and what the choices do."""
    members = {record.trial_id for record in front(study.records, study.objectives)}
    headings = (
        "trial", "configuration", "end", "front", "perplexity (base model)", "test perplexity", "accuracy (base model)",
        "test accuracy", "peak memory", "train tokens/s", "an epoch", "trainable", "predicted peak",
    )  # fmt: skip
    records = sorted(study.records, key=lambda record: record.trial_id)
    rows = [_trial_row(record, record.trial_id in members) for record in records]
    more = (nf4_price_table(study), effects_table(study), uncertainty_table(study))
    return "\n".join([
        f"## {_model_name(study)}, {study.settings['dataset']['name']}, {_device(study)}\n",
        f"{_circumstances(study)}\n",
        f"{count_statuses(study.records)}. {headline(study)}\n",
        markdown_table(headings, rows),
        *(_folded(table) for table in more if table is not None),
    ])  # fmt: skip


def _trial_row(record: TrialRecord, on_front: bool) -> tuple[str, ...]:
    found = record.measurements

    def shown(metric: str) -> str:
        return format_value(metric, found[metric])

    return (
        record.trial_id, configuration_name(record), ending(record), "yes" if on_front else "no",
        f"{shown('perplexity')} ({shown('base_perplexity')})", shown("test_perplexity"),
        f"{shown('accuracy')} ({shown('base_accuracy')})", shown("test_accuracy"), shown("peak_memory_bytes"),
        shown("train_tokens_per_second"), shown("seconds_per_epoch"), shown("trainable_parameters"),
        format_value("peak_memory_bytes", record.predictions.get("peak_memory_bytes")),
    )  # fmt: skip


def ending(record: TrialRecord) -> str:
    """How a trial ended; of one that did not fit, whether that was observed or predicted."""
    if record.status != "infeasible":
        return record.status
    return f"out of memory, {(record.infeasible or {}).get('source') or 'observed'}"


def _model_name(study: Study) -> str:
    return Path(str(study.settings["base_model"]["path"])).name.removesuffix(".gguf")


def _device(study: Study) -> str:
    names = dict.fromkeys(str(record.device.get("name") or "") for record in study.records)
    cores = study.provenance.get("hardware", {}).get("cores")
    return ", ".join(f"{cores} cores of a {name}" if name.startswith("CPU") else name for name in names if name)


def _circumstances(study: Study) -> str:
    data, training = study.settings["dataset"], study.settings["training"]
    versions = study.provenance.get("versions", {})
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "transformers", "bitsandbytes") if name in versions
    )
    records = [record for record in study.records if record.status == "complete"]
    steps = max((record.measurements["train_steps"] or 0 for record in records), default=0)
    process = any("resident" in str(record.device.get("memory_source")) for record in records)
    source = "the whole process' resident memory" if process else "the CUDA allocator's peak"
    rows = (
        f"{data['train_examples']} rows to train on, {data['eval_examples']} to steer, {data['test_examples']} to test"
    )
    return (
        f"Rows of at most {data['max_tokens']} tokens; {rows}; {steps} steps of "
        f"{training['micro_batch_size'] * training['gradient_accumulation_steps']} rows; peak memory is {source}. "
        f"{str(study.provenance.get('started', ''))[:10]}, commit {_commit(study)}, {named}."
    )


def _commit(study: Study) -> str:
    return str((study.provenance.get("git") or {}).get("commit") or DASH)[:7]


def _folded(table: Table) -> str:
    rows = [tuple(map(cell, row)) for row in table.rows]
    body = f"{table.caption}\n\n{markdown_table(table.headings, rows)}"
    return f"\n<details><summary>{table.title}</summary>\n\n{body}\n</details>\n"
