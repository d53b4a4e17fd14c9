"""The sections of single benchmarks: memory, one adapter alone against PEFT, two cards together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.wording import DASH, format_value
from search_spaces.trial_config import TARGET_SETS, TrialConfig
from study.hardware.calibration import MeasuredFootprint
from tests.benchmarks.results_page.markdown import markdown_table
from trainables.memory.prediction import DEFAULT_CONSTANTS, predict

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
