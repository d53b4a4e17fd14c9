"""Writes the page of published results, `analysis/guide/results.md`, from what is committed.

    python -m tests.benchmarks.results_page           writes the page

Measured numbers come from `results/`: each study directory there, each memory table, the comparisons with PEFT. What
no card has measured is predicted from shapes, in tables of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.load import Study, load_study
from analysis.pareto import front
from analysis.tables.effects import effects_table, nf4_price_table
from analysis.tables.table import Table
from analysis.tables.uncertainty import uncertainty_table
from analysis.wording import DASH, configuration_name, count_statuses, format_value, headline
from search_spaces.trial_config import TARGET_SETS, TrialConfig
from study.hardware.calibration import Calibration, MeasuredFootprint
from study.hardware.gpu_catalogue import GpuCard, find_gpu
from study.hardware.targets import Target
from study.plan.fitting import Fit, fit
from study.plan.workload import Workload
from study.records.record import TrialRecord
from tests.support.places import RESULTS, ROOT
from trainables.base_model.shape import ModelShape
from trainables.memory.prediction import DEFAULT_CONSTANTS, predict
from trainables.settings import TrainingSettings

PAGE = ROOT / "analysis" / "guide" / "results.md"
GIB, MIB = 2**30, 2**20
SHAPES = {
    "Llama-3-8B": ModelShape(4096, 14336, 32, 32, 8, 128, 128256, False, 65 * 4096),
    "Llama-3.2-3B": ModelShape(3072, 8192, 28, 24, 8, 128, 128256, True, 57 * 3072),
    "Llama-3.2-1B": ModelShape(2048, 8192, 16, 32, 8, 64, 128256, True, 33 * 2048),
}
CARDS = ("t4", "v100", "l4", "rtx4090", "a100-40", "h100")
TOKENS, TARGET_SHARE = 512, 0.25  # of a row: PubMedQA's are as long, and a quarter of one is target
GRID = tuple((p, rank, targets) for p in ("fp16", "nf4") for rank in (8, 64) for targets in ("q_v", "all_linear"))

INTRODUCTION = """\
# Published results

The paper grid (precision, rank 8 or 64, q and v or all linear layers) on every model and card that it was measured on
so far. `python -m tests.benchmarks.results_page` writes this page from the files in
[`tests/benchmarks/results`](../../tests/benchmarks/results); no number is typed by hand, and a test fails where page
and files differ. A *measurement* was observed on the device, a *prediction* follows from the model's shape; they never
share a column. What does not fit is listed like everything else. [How each number is measured](how_measured.md).
"""
MEMORY_WORDS = """\
One adapter alone, random weights (memory does not depend on values), half of the tokens targets, bf16 products over
NF4. Predictions are not calibrated; one of their constants, cuBLAS' workspace, is Hopper's. In the first nine rows
about 16 GiB on the card were not the process' own: compare "reserved"."""
ALONE_WORDS = """\
Llama-3-8B's shapes with random weights, NF4 with double quantization, fp16 products, activation checkpointing, one row
a step, no dropout; PEFT with FlashAttention, in which the card is busy for less time. The wall time is mostly launches,
which a slower card hides; "busy" is the time in which the card computes. Packs are on
[the page of speeds](../../tests/benchmarks/README.md#one-packed-step), where PEFT's time is that of its faster
attention kernel."""
SEVERAL_WORDS = """\
Llama-3-8B's shapes with random weights, one row of up to 512 tokens a step, checkpointing. Whole layers are on one card
or the other, and rows go through them in turn: two cards hold more, and are no faster than one."""
PREDICTED_WORDS = f"""\
The peak of training alone, one row of {TOKENS} tokens, a quarter of them targets, checkpointing, on one card, not
calibrated. Out of memory: that, or a moment of generating, does not fit beside CUDA's context. Over several cards of
one machine, or with your rows: `python -m study plan STUDY.yaml --gpu NAME --gpus N`."""
MISSING = """\
## Not measured yet

- Anything on a T4, and anything on a cluster of several machines: none was at hand. A T4's rows are predictions.
- The quality of Llama-3 models: their weights are gated. Memory and speed do not depend on weights' values, so that
  random ones do for those; perplexity and accuracy they cannot give.
- More than one seed of the grid: how much the seed matters is in no interval above.

A study of your own becomes a part of this page when its `study.yaml`, `results.jsonl` and `provenance.json` are
put into a folder of `tests/benchmarks/results`.
"""


def page() -> str:
    """The whole page as Markdown."""
    studies = [load_study(file.parent) for file in sorted(RESULTS.glob("*/study.yaml"))]
    tables = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("memory_table_*.json"))]
    step = json.loads((RESULTS / "packed_step_h100.json").read_text(encoding="utf-8"))
    two = json.loads((RESULTS / "several_cards_h100.json").read_text(encoding="utf-8"))
    parts = [INTRODUCTION, *map(study_section, studies), *map(memory_section, tables), alone_section(step)]
    parts.append(several_cards_section(two))
    return "\n".join([*parts, prediction_section(), MISSING])


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


def memory_section(table: Mapping[str, Any]) -> str:
    """Measured peaks of training one adapter alone, with random weights, beside what was predicted."""
    headings = (
        "model", "precision", "configuration", "rows x tokens", "checkpointing", "end", "peak memory", "reserved",
        "all on the card", "a micro-batch", "predicted peak", "prediction off by",
    )  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in table["versions"].items())
    rows = [_memory_row(row, table["engine"]) for row in table["rows"]]
    return "\n".join([
        f"## Memory on one {table['device']}\n",
        f"{MEMORY_WORDS} {versions}.\n",
        markdown_table(headings, rows),
    ])  # fmt: skip


def _memory_row(row: Mapping[str, Any], engine: int) -> tuple[str, ...]:
    keys = ("peak_memory_bytes", "peak_reserved_bytes", "peak_device_bytes")
    found = {key: row.get(key) for key in keys}
    known = {**{key: row[key] for key in ("shape", "setting", "load")}, **found, "engine": engine}
    one = MeasuredFootprint.from_dict(known)
    predicted = predict(one.shape, one.setting, one.load, DEFAULT_CONSTANTS[one.setting.device]).peak_memory_bytes
    measured, seconds, load = found["peak_memory_bytes"], row.get("seconds"), one.load
    targets = next((name for name, modules in TARGET_SETS.items() if tuple(modules) == load.target_modules), "")
    return (
        row["model"], one.setting.precision,
        f"rank {load.rank}, {targets}{', dropout' if load.dropout else ''}", f"{load.rows} x {load.tokens}",
        "yes" if one.setting.gradient_checkpointing else "no",
        "complete" if row["status"] == "measured" else f"{row['status']}, observed",
        *(format_value(key, found[key]) for key in keys),
        DASH if seconds is None else f"{1000 * seconds:.0f} ms", format_value("peak_memory_bytes", predicted),
        DASH if measured is None else f"{100 * (predicted / measured - 1):+.2f} %".replace("-", "−"),
    )  # fmt: skip


def alone_section(step: Mapping[str, Any]) -> str:
    """One adapter alone, here and with PEFT as it comes: memory and time of a step."""
    about, cells = step["about"], step["cells"]
    by_key = {(cell["targets"], cell["tokens"], cell["step"]): cell for cell in cells}
    asked = [(targets, tokens) for targets in ("q_v", "all_linear") for tokens in sorted(about["options"]["tokens"])]
    rows = [_alone_row(by_key, targets, tokens, about["rank"]) for targets, tokens in asked]
    headings = (
        "configuration", "tokens a row", "peak memory", "PEFT's peak memory", "a step", "PEFT's step", "of it busy",
        "PEFT's busy",
    )  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return "\n".join([
        f"## One adapter alone against PEFT, one {about['device']}\n",
        f"{ALONE_WORDS} {versions}.\n",
        markdown_table(headings, rows),
    ])  # fmt: skip


def _alone_row(cells: Mapping[tuple[str, int, str], Any], targets: str, tokens: int, rank: int) -> tuple[str, ...]:
    ours, peft = cells[targets, tokens, "packed 1"], cells[targets, tokens, "peft flash"]
    times = [f"{1000 * cell[kind]:.0f} ms" for kind in ("wall", "busy") for cell in (ours, peft)]
    peaks = [format_value("peak_memory_bytes", cell["peak_bytes"]) for cell in (ours, peft)]
    return (f"nf4, rank {rank}, {targets}", str(tokens), *peaks, *times)


def several_cards_section(found: Mapping[str, Any]) -> str:
    """A base model over two cards that are each too small for it, beside NF4 on one of them."""
    headings = (
        "configuration", "cards", "peak memory of each", "in sum", "train tokens/s", "predicted peak of each",
    )  # fmt: skip
    device = found["rows"][0]["device"]
    return "\n".join([
        f"## Two cards that hold a 16-bit base model together, each a {device['name']} capped at 14.56 GiB\n",
        f"{SEVERAL_WORDS}\n",
        markdown_table(headings, [_several_row(row) for row in found["rows"]]),
    ])  # fmt: skip


def _several_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    config, measured = TrialConfig.from_dict(row["config"]), row["measured_bytes"]
    peaks, predicted = (
        ", ".join(format_value("peak_memory_bytes", one) for one in some) for some in (measured, row["predicted_bytes"])
    )
    return (
        f"{config.precision}, rank {config.rank}, {config.target_set}", str(len(measured)), peaks,
        format_value("peak_memory_bytes", sum(measured)),
        format_value("train_tokens_per_second", row["measurements"]["train_tokens_per_second"]), predicted,
    )  # fmt: skip


def prediction_section() -> str:
    """Which configurations of the grid fit which card, by the memory model alone: every column is a prediction."""
    cards = [find_gpu(name) for name in CARDS]
    headings = ("configuration", *(f"{card.name}, {card.memory_bytes / GIB:.2f} GiB" for card in cards))
    tables = [
        f"### {name}\n\n{markdown_table(headings, [_fit_row(shape, cards, *one) for one in GRID])}"
        for name, shape in SHAPES.items()
    ]
    return "\n".join([
        "## Predicted: the paper grid on cards of the catalogue\n",
        f"{PREDICTED_WORDS}\n",
        *tables,
    ])  # fmt: skip


def _fit_row(shape: ModelShape, cards: Sequence[GpuCard], precision: str, rank: int, targets: str) -> tuple[str, ...]:
    fits = (predicted_fit(shape, card, precision, rank, targets) for card in cards)
    return (f"{precision}, rank {rank}, {targets}", *map(_fit_words, fits))


def predicted_fit(shape: ModelShape, card: GpuCard, precision: str, rank: int, targets: str) -> Fit:
    """Whether a configuration fits one such card, and what it takes there."""
    config = TrialConfig(precision, rank, 2 * rank, 0.05, TARGET_SETS[targets], 2e-4)
    lengths = {"rows": 1, "tokens": TOKENS, "target_tokens": int(TOKENS * TARGET_SHARE), "max_length": TOKENS}
    workload = Workload.of(shape, TrainingSettings(), {"train": lengths, "eval": lengths})
    calibration = Calibration(DEFAULT_CONSTANTS["cuda"])
    return fit(config, workload, Target(card, card.memory_bytes, 1, 1, calibration))


def _fit_words(found: Fit) -> str:
    asked = format_value("peak_memory_bytes", found.predictions[0].peak_memory_bytes)
    return asked if found.fits else f"**out of memory** ({asked})"


def _folded(table: Table) -> str:
    rows = [tuple(map(_cell, row)) for row in table.rows]
    body = f"{table.caption}\n\n{markdown_table(table.headings, rows)}"
    return f"\n<details><summary>{table.title}</summary>\n\n{body}\n</details>\n"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as GitHub reads it. Raises ValueError where a row has another length than the headings."""
    return "\n".join(_lines(headings, rows)) + "\n"


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_cell, headings))} |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        if len(row) != len(headings):
            raise ValueError(f"a row must have {len(headings)} cells; it has {len(row)}: {row}")
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("\\|", "|").replace("|", "\\|").split())


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
