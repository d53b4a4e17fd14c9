"""Tables that answer a study's questions, each with a caption: how sure, for which memory, what a choice does."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.figures.parts import CONFIGURATION
from analysis.load import Study
from analysis.pareto import front
from analysis.statistics.bootstrap import Interval
from analysis.statistics.budgets import BUDGETS, best_within, memory_metric, quality_objective
from analysis.statistics.effects import DIFFERENCES, Effect, effect, standard_effects
from analysis.statistics.front_uncertainty import MemberUncertainty, front_uncertainty
from analysis.statistics.importance import parameter_importance
from analysis.wording import DASH, configuration_name, format_duration, format_share, format_value
from study.records.record import TrialRecord

MOST_ROWS = 20
FULL_PRECISIONS = ("fp16", "bf16", "fp32")
EFFECTS_HEADINGS = ("Choice", "From", "To", "Measure", "Change", "95 % interval", "Pairs", "Sure")
EFFECTS_CAPTION = (
    "Means over pairs of trials that differ in this one choice; the interval draws pairs anew (for perplexity "
    "evaluation documents too). An interval with 0 in it says that the study cannot tell; of accuracy, whose documents "
    "are not drawn anew, only whether the pairs agree can be said. Less is better, but for accuracy."
)
IMPORTANCE_CAPTION = (
    "Shares that sum to 100 %, by PED-ANOVA: how differently a parameter is distributed among the best quarter of the "
    "complete trials and among all of them. Which way it pulls is in the table of what each choice does."
)
METRIC_WORDS = {
    "perplexity": "perplexity", "test_perplexity": "test perplexity", "accuracy": "answer accuracy",
    "peak_memory_bytes": "peak memory", "seconds_per_epoch": "time per epoch",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of texts: a title, what to see in it, and how many of the columns after the first are words."""

    name: str
    title: str
    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1

    def to_csv(self) -> str:
        """Headings and rows as CSV."""
        out = io.StringIO()
        csv.writer(out).writerows([self.headings, *self.rows])
        return out.getvalue()


def uncertainty_table(study: Study) -> Table | None:
    """How likely each configuration is on the front; None without one, or where trials saw different documents."""
    comparable = [record for record in study.records if record.status == "complete"]
    try:
        members = front_uncertainty(comparable, study.objectives).members[:MOST_ROWS]
    except ValueError:  # evaluated on different documents: nothing to draw from together
        return None
    if not members:
        return None
    by_id = {record.trial_id: record for record in study.records}
    caption = (
        "Evaluation documents are drawn anew 1,000 times, the same for all trials, and seeds where there are several; "
        "brackets hold the middle 95 %. A configuration near 100 % is on the front whatever was drawn; one of 30 % to "
        "70 % may or may not be. With one seed, how much the seed matters is not in it."
    )
    headings = ("Trials", "Configuration", "On the front", "Likely", *(o.label for o in study.objectives))
    rows = tuple(_member_row(member, by_id, study) for member in members)
    return Table("uncertainty", "How sure the front is", caption, headings, rows)


def _member_row(member: MemberUncertainty, by_id: dict[str, TrialRecord], study: Study) -> tuple[str, ...]:
    return (
        ", ".join(member.trial_ids),
        configuration_name(by_id[member.trial_ids[0]]),
        "yes" if member.on_front else "no",
        f"{100 * member.probability:.0f} %",
        *(_bracketed(objective.metric, member.intervals[objective.metric]) for objective in study.objectives),
    )


def _bracketed(metric: str, interval: Interval) -> str:
    value = format_value(metric, interval.value)
    if interval.low == interval.high or not math.isfinite(interval.high - interval.low):
        return value
    return f"{value} ({format_value(metric, interval.low)} to {format_value(metric, interval.high)})"


def budgets_table(study: Study) -> Table | None:
    """The configuration to take with so much memory; None without a complete trial."""
    cards = [(size, best_within(study.records, study.objectives, float(size))) for size in BUDGETS]
    quality, metric = quality_objective(study.objectives), memory_metric(study.objectives)
    known = [(size, card) for size, card in cards if card is not None]
    if not known:
        return None
    rows = tuple(
        (
            format_value(metric, size),
            card.record.trial_id,
            configuration_name(card.record),
            format_value(quality.metric, card.quality),
            "the best" if card.loss == 0 else f"{format_share(card.loss)} worse",
            format_value(metric, card.memory_bytes),
        )
        for size, card in known
    )
    caption = "The least memory within 2 % of the best quality that fits, and what the budget costs against the best."
    headings = ("Memory there is", "Trial", "Configuration", quality.label, "Against the best", "It needs")
    return Table("budgets", "Which configuration for which memory", caption, headings, rows, words=2)


def effects_table(study: Study) -> Table | None:
    """What rank and target modules do, over pairs of trials equal in all else; None without pairs.

    The precision has a table of its own, `nf4_price_table`.
    """
    found = [one for one in standard_effects(study.records) if one.pairs and one.factor != "precision"]
    if not found:
        return None
    rows = tuple(map(_effect_row, found))
    title = "What each choice does, at equal everything else"
    return Table("effects", title, EFFECTS_CAPTION, EFFECTS_HEADINGS, rows, words=3)


def importance_table(study: Study) -> Table | None:
    """What of the things sampled matters, for each objective; None for few trials, or where nothing varies."""
    found = parameter_importance(study.records, study.objectives)
    names = [name for name, _ in CONFIGURATION if any(name in shares for shares in found.values())]
    if len(names) < 2:  # of one there is nothing to compare
        return None
    labels = {one.metric: one.label for one in study.objectives}
    rows = tuple(
        (labels[metric], *(f"{100 * shares[name]:.0f} %" if name in shares else DASH for name in names))
        for metric, shares in found.items()
    )
    headings = ("Objective", *(heading for name, heading in CONFIGURATION if name in names))
    return Table("importance", "What sets the good trials apart", IMPORTANCE_CAPTION, headings, rows)


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


def nf4_price_table(study: Study) -> Table | None:
    """What NF4 costs and saves against 16 bits (on a CPU fp32); None where the study has no such pair."""
    asked = [(bits, metric) for bits in FULL_PRECISIONS for metric in METRIC_WORDS]
    found = [effect(study.records, "precision", bits, "nf4", metric) for bits, metric in asked]
    pairs = [one for one in found if one.pairs]
    if not pairs:
        return None
    caption = f"What the 4-bit base saves in memory, and what it costs in quality and time. {EFFECTS_CAPTION}"
    return Table("nf4_price", "NF4’s price", caption, EFFECTS_HEADINGS, tuple(map(_effect_row, pairs)), words=3)


def savings_table(study: Study) -> Table | None:
    """What early stopping saved: steps and time not spent; None where no trial was stopped."""
    stopped = [record for record in study.records if record.status == "stopped"]
    complete = [record for record in study.records if record.status == "complete"]
    whole = max((steps for record in complete if (steps := record.measurements["train_steps"])), default=None)
    if not stopped or whole is None:
        return None
    taken = sum(record.measurements["train_steps"] or 0 for record in stopped)
    spared = whole * len(stopped) - taken
    share = spared / (whole * (len(stopped) + len(complete)))
    rows = [
        ("trials stopped", f"{len(stopped)} of {len(stopped) + len(complete)}"),
        ("optimizer steps of a whole training", f"{whole:,}"),
        ("steps that the stopped trials took", f"{taken:,} of {whole * len(stopped):,}"),
        ("steps not taken, of all", format_share(round(share, 3))),
    ]
    walls = [record.measurements["wall_seconds"] for record in stopped if record.measurements["wall_seconds"]]
    if walls:
        rows.append(("wall time of the stopped trials, in company", format_duration(sum(walls))))
    caption = "A stopped trial frees its place for the next one; it was judged worse, and is not on the front."
    return Table("savings", "What early stopping saved", caption, ("", "Value"), tuple(rows), words=0)


def samples_table(study: Study, trials: Sequence[str] = ()) -> Table | None:
    """What the base model and tuned ones answer, a row each; of the front, or of the given trials side by side."""
    members = front(study.records, study.objectives)
    chosen = [record for record in study.records if record.trial_id in trials] if trials else members
    rows: list[tuple[str, ...]] = []
    for prompt in dict.fromkeys(str(sample["prompt"]) for record in chosen for sample in record.samples):
        seen: set[str] = set()
        for record in chosen:
            for sample in (each for each in record.samples if str(each["prompt"]) == prompt):
                if sample.get("reference") and not seen:
                    rows.append((prompt, "reference answer", str(sample["reference"])))
                if record.config.precision not in seen:
                    rows.append((prompt, f"base model, {record.config.precision}", str(sample.get("base") or "")))
                    seen.add(record.config.precision)
                rows.append(
                    (prompt, f"{record.trial_id}: {configuration_name(record)}", str(sample.get("tuned") or ""))
                )
    if not rows:
        return None
    caption = "Greedy decoding; what is cut off reached the study’s max_new_tokens."
    return Table("samples", "Samples", caption, ("Prompt", "Who", "Answer"), tuple(rows), words=2)


TABLES: dict[str, Callable[[Study], Table | None]] = {
    "uncertainty": uncertainty_table, "budgets": budgets_table, "effects": effects_table,
    "importance": importance_table, "nf4_price": nf4_price_table, "savings": savings_table, "samples": samples_table,
}  # fmt: skip
