"""One record as a flat row of a table: every value under a name of its own."""

from __future__ import annotations

from typing import Any

from study.records.record import MEASUREMENTS, TrialRecord

INFEASIBLE = ("moment", "requested_bytes", "available_bytes", "source")
COMPARABLE = ("quality", "cost")
DEVICE = ("compute_dtype", "memory_source")


def flat_row(record: TrialRecord) -> dict[str, Any]:
    """The record without curve, samples and evaluation rows; missing values are None.

    Measurements keep their names and predictions become `predicted_...`, so that the two never share a column; target
    modules are their set's name.
    """
    infeasible = record.infeasible or {}
    return {
        **{name: getattr(record, name) for name in ("study", "trial_id", "status", "reason", "error", "adapter")},
        **record.config.to_dict(),
        "target_modules": record.config.target_set,
        **{name: record.measurements[name] for name in MEASUREMENTS},
        **{f"predicted_{name}": value for name, value in record.predictions.items()},
        **{f"infeasible_{name}": infeasible.get(name) for name in INFEASIBLE},
        "device": record.device.get("name"),
        **{name: record.device.get(name) for name in DEVICE},
        **{f"comparable_{name}": record.comparable.get(name) for name in COMPARABLE},
    }
