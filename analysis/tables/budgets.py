"""The table of budgets: the configuration to take under the usual ones and the study's own."""

from __future__ import annotations

from analysis.load import Study
from analysis.pareto import TOLERANCE
from analysis.statistics.budgets import (
    BUDGETS,
    T4,
    best_within,
    least_memory,
    memory_metric,
    quality_objective,
)
from analysis.tables.table import Table
from analysis.wording import DASH, budget, configuration_name, format_share, format_value


def budgets_table(study: Study) -> Table | None:
    """The configuration to take under each of the usual budgets and the study's own; None without a complete trial."""
    if least_memory(study.records, study.objectives) is None:
        return None
    quality = quality_objective(study.objectives)
    caption = (
        f"The least memory within {format_share(TOLERANCE)} of the best {quality.label.lower()} that fits. “Against "
        "the best” is what the budget costs: the loss against the study’s best trial, whatever that needs."
    )
    headings = ("Memory there is", "Trial", "Configuration", quality.label, "Against the best", "It needs", "It leaves")
    rows = tuple(_budget_row(size, study) for size in _budgets(study))
    return Table("budgets", "Which configuration for which memory", caption, headings, rows, words=2)


def _budgets(study: Study) -> list[float]:
    """In bytes, the smallest first; of two that read alike the usual one."""
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


def _budget_row(size: float, study: Study) -> tuple[str, ...]:
    metric, quality = memory_metric(study.objectives), quality_objective(study.objectives)
    name, card = _budget_name(size, study), best_within(study.records, study.objectives, size)
    if card is None:
        least = format_value(metric, least_memory(study.records, study.objectives))
        return (name, DASH, f"nothing fits; the smallest needs {least}", DASH, DASH, DASH, DASH)
    return (
        name,
        card.record.trial_id,
        configuration_name(card.record),
        format_value(quality.metric, card.quality),
        "the best" if card.loss == 0 else f"{format_share(card.loss)} worse",
        format_value(metric, card.memory_bytes),
        format_value(metric, card.spare_bytes),
    )
