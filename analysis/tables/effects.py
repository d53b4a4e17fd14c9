"""The tables of effects: rank, target modules and layers, and NF4's price."""

from __future__ import annotations

import math

from analysis.load import Study
from analysis.statistics.effects import DIFFERENCES, METRICS, Effect, effects, standard_effects
from analysis.tables.table import Table
from analysis.wording import DASH

FULL_PRECISIONS = ("fp16", "bf16", "fp32")
EFFECTS_HEADINGS = ("Choice", "From", "To", "Measure", "Change", "95 % interval", "Pairs", "Sure")
EFFECTS_CAPTION = (
    "Mean changes over pairs of trials that differ in this one choice. The interval is a bootstrap over pairs, and for "
    "perplexity over evaluation documents too; where it contains 0, the study cannot tell. For accuracy, documents are "
    "not resampled, so the table says only whether the pairs agree. Lower is better, except for accuracy."
)
METRIC_WORDS = {
    "perplexity": "perplexity", "test_perplexity": "test perplexity", "accuracy": "answer accuracy",
    "peak_memory_bytes": "peak memory", "seconds_per_epoch": "time per epoch",
}  # fmt: skip


def effects_table(study: Study) -> Table | None:
    """What rank, target modules and layers do, over pairs of trials equal in all else; None without pairs.

    The precision has a table of its own, `nf4_price_table`.
    """
    found = [one for one in standard_effects(study.records) if one.pairs and one.factor != "precision"]
    if not found:
        return None
    rows = tuple(map(_effect_row, found))
    title = "What each choice does, at equal everything else"
    return Table("effects", title, EFFECTS_CAPTION, EFFECTS_HEADINGS, rows, words=3)


def nf4_price_table(study: Study) -> Table | None:
    """What NF4 costs and saves against 16 bits (on a CPU fp32); None where the study has no such pair."""
    found = [one for bits in FULL_PRECISIONS for one in effects(study.records, "precision", bits, "nf4", METRICS)]
    pairs = [one for one in found if one.pairs]
    if not pairs:
        return None
    caption = f"What the 4-bit base saves in memory, and what it costs in quality and time. {EFFECTS_CAPTION}"
    return Table("nf4_price", "NF4’s price", caption, EFFECTS_HEADINGS, tuple(map(_effect_row, pairs)), words=3)


def _effect_row(one: Effect) -> tuple[str, ...]:
    change = one.change
    assert change is not None  # it has pairs
    points = one.metric in DIFFERENCES
    known = math.isfinite(change.low) and math.isfinite(change.high)
    interval = f"{_change(change.low, points)} to {_change(change.high, points)}" if known else DASH
    return (
        one.factor.replace("_", " "), str(one.before), str(one.after), METRIC_WORDS[one.metric],
        _change(change.value, points), interval, str(one.pairs), _sure(one, points) if known else DASH,
    )  # fmt: skip


def _sure(one: Effect, points: bool) -> str:
    if not one.sure:
        return "no"
    return "pairs agree" if points else "yes"


def _change(value: float, points: bool) -> str:
    return f"{100 * value:+.1f} {'points' if points else '%'}".replace("-", "−")
