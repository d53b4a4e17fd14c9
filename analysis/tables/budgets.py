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
from analysis.wording import DASH, format_share, format_value, trial_name


def budgets_table(study: Study) -> Table | None:
    """The configuration to take under each of the usual budgets and the study's own; None without a complete trial."""
    if least_memory(study.records, study.objectives) is None:
        return None
    quality = quality_objective(study.objectives)
    caption = (
        f"The least memory within {format_share(TOLERANCE)} of the best {quality.label.lower()} that fits. “Against "
        "the best” is what the budget costs: the loss against the study’s best trial, whatever that needs."
        f"{_needs(study)}"
    )
    headings = ("Memory there is", "Trial", "Configuration", quality.label, "Against the best", "It needs", "It leaves")
    rows = tuple(_budget_row(size, study, own) for size, own in _budgets(study))
    return Table("budgets", "Which configuration for which memory", caption, headings, rows, words=2)


def _needs(study: Study) -> str:
    """What is compared with a budget, where trials ran on cards."""
    if all(record.measurements.get("peak_reserved_bytes") is None for record in study.records):
        return ""
    limit = "; the study’s memory limit bounds the first two alone" if study.memory_limit is not None else ""
    return (
        " What a trial needs is the allocator’s peak, the fragments in what it held at most, and CUDA’s context, since "
        f"a card must have them all{limit}."
    )


def _budgets(study: Study) -> list[tuple[float, bool]]:
    """In bytes, the smallest first, each with whether it bounds the process alone, as the study's own limit does.

    Of two that read alike the usual one.
    """
    metric = memory_metric(study.objectives)
    own = [objective.reference for objective in study.objectives if objective.metric == metric]
    limit = study.memory_limit
    sizes = [*((size, False) for size in (own if limit is None else [])), *((size, False) for size in BUDGETS)]
    shown = {format_value(metric, size): (float(size), kind) for size, kind in sizes}
    if limit is not None:
        shown.setdefault(format_value(metric, limit), (limit, True))
    return sorted(shown.values())


def _budget_name(size: float, of_process: bool, study: Study) -> str:
    """`8 GiB`, `14.56 GiB (a T4)`, `1.25 GiB (this study’s)`."""
    name = format_value(memory_metric(study.objectives), size).replace(".00 ", " ")
    if size in map(float, BUDGETS) and not of_process:
        return f"{name} (a T4)" if size == T4 else name
    return f"{name} (this study’s{' limit' if of_process else ''})"


def _budget_row(size: float, study: Study, of_process: bool) -> tuple[str, ...]:
    metric, quality = memory_metric(study.objectives), quality_objective(study.objectives)
    card = best_within(study.records, study.objectives, size, of_process=of_process)
    name = _budget_name(size, of_process, study)
    if card is None:
        least = format_value(metric, least_memory(study.records, study.objectives, of_process))
        return (name, DASH, f"nothing fits; the smallest needs {least}", DASH, DASH, DASH, DASH)
    return (
        name,
        card.record.trial_id,
        trial_name(card.record),
        format_value(quality.metric, card.quality),
        "the best" if card.loss == 0 else f"{format_share(card.loss)} worse",
        format_value(metric, card.memory_bytes),
        format_value(metric, card.spare_bytes),
    )
