"""The table of importances: which sampled parameter matters for which objective."""

from __future__ import annotations

from analysis.figures.parts import CONFIGURATION
from analysis.load import Study
from analysis.statistics.importance import parameter_importance
from analysis.tables.table import Table
from analysis.wording import DASH

IMPORTANCE_CAPTION = (
    "Shares that sum to 100 %, by PED-ANOVA: how differently a parameter is distributed among the best quarter of the "
    "complete trials and among all of them. Which way it pulls is in the table of what each choice does."
)


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
