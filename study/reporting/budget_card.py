"""The budget card: which configuration to take with so much memory, its costs, and how to train it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from analysis.load import Study
from analysis.statistics.budgets import BudgetCard, best_within, least_memory, memory_metric, quality_objective
from analysis.wording import format_share, format_value, trial_name
from study.records.layout import STUDY_FILE
from study.records.record import TrialRecord

COSTS = {
    "peak memory": "peak_memory_bytes",
    "training speed": "train_tokens_per_second",
    "time per epoch": "seconds_per_epoch",
    "decoding speed": "generated_tokens_per_second",
}
IN_TOKENS = ("train_tokens_per_second", "generated_tokens_per_second")


def budget_text(study: Study, budget_bytes: float, tolerance: float) -> str:
    """The card for one budget, in words; what would fit instead where nothing does."""
    card = best_within(study.records, study.objectives, budget_bytes, tolerance)
    metric = memory_metric(study.objectives)
    size = format_value(metric, budget_bytes)
    if card is None:
        least = least_memory(study.records, study.objectives)
        if least is None:
            return f"{size}: no complete trial with quality and memory measured yet."
        return f"{size}: no complete trial fits; the least that any needs is {format_value(metric, least)}."
    facts = {**_quality(study, card), **_costs(study, card)}
    facts["adapter"] = _adapter(study, card.record)
    width = max(map(len, facts))
    lines = [f"{size}: {card.record.trial_id}, {trial_name(card.record)}"]
    lines += [f"  {name:<{width}}   {text}" for name, text in facts.items()]
    return "\n".join([*lines, f"  train it again: {retrain_command(study.directory, card.record)}"])


def retrain_command(directory: Path, record: TrialRecord) -> str:
    """What trains this one configuration again, as the study did."""
    values = record.config.to_dict()
    seed = values.pop("seed")
    changes = {"space": values, "search": {"algorithm": "grid"}, "seeds": [seed], "adapters": "complete"}
    words = ["python", "-m", "study", "run", str(directory / STUDY_FILE)]
    for key, value in changes.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    return shlex.join(words)


def _quality(study: Study, card: BudgetCard) -> dict[str, str]:
    objective = quality_objective(study.objectives)
    name, value = objective.label.lower(), format_value(objective.metric, card.quality)
    within = "within" if card.is_near_best else "beyond"
    loss = format_share(max(0.0, card.loss))
    told = f"{value}, {loss} worse than the study's best, {within} the tolerance of {format_share(card.tolerance)}"
    return {name: value if card.loss <= 0 else told}


def _costs(study: Study, card: BudgetCard) -> dict[str, str]:
    found = card.record.measurements
    metric = memory_metric(study.objectives)
    facts = {
        name: format_value(key, found[key]) + (" tokens/s" if key in IN_TOKENS else "")
        for name, key in COSTS.items()
        if found[key] is not None
    }
    if card.memory_bytes != found["peak_memory_bytes"]:
        facts["needed of a card"] = (
            f"{format_value(metric, card.memory_bytes)}: what the allocator held at most, and CUDA's context"
        )
    return {**facts, "left of the budget": format_value(metric, card.spare_bytes)}


def _adapter(study: Study, record: TrialRecord) -> str:
    folder = study.directory / record.adapter if record.adapter else None
    if folder is not None and folder.is_dir():
        return str(folder)
    return "not kept; the command below trains it again"
