"""All tables of a study, by name."""

from __future__ import annotations

from collections.abc import Callable

from analysis.load import Study
from analysis.tables.budgets import budgets_table
from analysis.tables.effects import effects_table, nf4_price_table
from analysis.tables.importance import importance_table
from analysis.tables.samples import samples_table
from analysis.tables.savings import savings_table
from analysis.tables.table import Table
from analysis.tables.uncertainty import uncertainty_table

TABLES: dict[str, Callable[[Study], Table | None]] = {
    "uncertainty": uncertainty_table, "budgets": budgets_table, "effects": effects_table,
    "importance": importance_table, "nf4_price": nf4_price_table, "savings": savings_table, "samples": samples_table,
}  # fmt: skip
