"""All records of a study as one flat table, `results.parquet`. (no torch, no ray)"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from study.records.record import MEASUREMENTS, TrialRecord

TEXT, WHOLE, NUMBER = pa.string(), pa.int64(), pa.float64()
COLUMNS: dict[str, pa.DataType] = {
    **dict.fromkeys(("study", "trial_id", "status", "reason", "error", "precision"), TEXT),
    "rank": WHOLE,
    "lora_alpha": NUMBER,
    "lora_dropout": NUMBER,
    "target_modules": TEXT,
    "learning_rate": NUMBER,
    "seed": WHOLE,
    **dict.fromkeys(MEASUREMENTS, NUMBER),
    "predicted_peak_memory_bytes": NUMBER,
    "infeasible_phase": TEXT,
    "infeasible_requested_bytes": NUMBER,
    "infeasible_available_bytes": NUMBER,
    "infeasible_source": TEXT,
    **dict.fromkeys(("device", "compute_dtype", "memory_source", "adapter"), TEXT),
    **dict.fromkeys(("comparable_quality", "comparable_cost"), TEXT),
}


def write_results_table(file: Path, records: Sequence[TrialRecord]) -> None:
    """Writes the table at once: who reads it meanwhile finds the old one or the new. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(handle)
    try:
        pq.write_table(results_table(records), name)
        os.chmod(name, 0o644)  # mkstemp's files are for their owner alone
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def results_table(records: Sequence[TrialRecord]) -> pa.Table:
    """One row a trial, by the names of `COLUMNS`; a missing value is null.

    Measurements keep their names and predictions become `predicted_...`, so that the two never share a column; target
    modules are their set's name. Measured numbers are 64-bit floats, exact for whole numbers up to 2**53. A prediction
    that `COLUMNS` does not know gets a column at the end.
    """
    rows = [flat_row(record) for record in records]
    further = {name: NUMBER for row in rows for name in row if name not in COLUMNS}
    return pa.Table.from_pylist(rows, schema=pa.schema({**COLUMNS, **further}))


def flat_row(record: TrialRecord) -> dict[str, Any]:
    """A record without curve, samples and evaluation rows, every value under a name of its own."""
    infeasible = record.infeasible or {}
    return {
        **{name: getattr(record, name) for name in ("study", "trial_id", "status", "reason", "error", "adapter")},
        **record.config.to_dict(),
        "target_modules": record.config.target_set,
        **{name: record.measurements[name] for name in MEASUREMENTS},
        **{f"predicted_{name}": value for name, value in record.predictions.items()},
        **{f"infeasible_{name}": infeasible.get(name) for name in _names_after("infeasible_")},
        "device": record.device.get("name"),
        **{name: record.device.get(name) for name in ("compute_dtype", "memory_source")},
        **{f"comparable_{name}": record.comparable.get(name) for name in _names_after("comparable_")},
    }


def _names_after(prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in COLUMNS if name.startswith(prefix)]
