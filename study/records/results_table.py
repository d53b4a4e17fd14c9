"""All records of a study as one flat table, `results.parquet`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from study.records.record import COMPARABLE, INFEASIBLE, MEASUREMENTS, TrialRecord, flat_row
from trainables.guarded_files import open_regular

TEXT, WHOLE, NUMBER = pa.string(), pa.int64(), pa.float64()
COLUMNS: dict[str, pa.DataType] = {
    **dict.fromkeys(("study", "trial_id", "status", "reason", "error", "precision"), TEXT),
    "rank": WHOLE,
    "lora_alpha": NUMBER,
    "lora_dropout": NUMBER,
    "target_modules": TEXT,
    "layers": TEXT,
    "learning_rate": NUMBER,
    "seed": WHOLE,
    **dict.fromkeys(MEASUREMENTS, NUMBER),
    "predicted_peak_memory_bytes": NUMBER,
    **{f"infeasible_{name}": NUMBER if name.endswith("_bytes") else TEXT for name in INFEASIBLE},
    **dict.fromkeys(("device", "compute_dtype", "memory_source", "in_host_memory", "adapter"), TEXT),
    **{f"comparable_{name}": TEXT for name in COMPARABLE},
}


def write_results_table(file: Path, records: Sequence[TrialRecord]) -> None:
    """Replaces the table at once: a reader finds the old one or the new. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(handle)
    try:
        pq.write_table(results_table(records), name)
        os.chmod(name, 0o644)  # mkstemp's files are for their owner alone
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def count_rows(file: Path) -> int | None:
    """Returns how many records a table holds; None for what is no table."""
    try:
        with open_regular(file) as table:
            return int(pq.read_metadata(table).num_rows)
    except (OSError, ValueError):  # ArrowInvalid is a ValueError, and FileRefusedError another
        return None


def results_table(records: Sequence[TrialRecord]) -> pa.Table:
    """Returns one row a trial, by the names of `COLUMNS`; a missing value is null.

    Measurements keep their names and predictions become `predicted_...`, so that the two never share a column; target
    modules are their set's name, layers a text. Measured numbers are 64-bit floats, exact for whole numbers up to
    2**53. A prediction that `COLUMNS` does not know gets a column at the end.
    """
    rows = [flat_row(record) for record in records]
    kinds = {**COLUMNS, **{name: NUMBER for row in rows for name in row if name not in COLUMNS}}
    return pa.Table.from_pylist([_in_kinds(row, kinds) for row in rows], schema=pa.schema(kinds))


def _in_kinds(row: Mapping[str, Any], kinds: Mapping[str, pa.DataType]) -> dict[str, Any]:
    """The row with its numbers as floats: Arrow refuses to round a whole number by itself."""
    return {name: float(value) if kinds[name] == NUMBER and value is not None else value for name, value in row.items()}
